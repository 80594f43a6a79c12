//! Policy: what rules see through and what they do not (`corpus/`), what tags hold back, and approvals from the request to the
//! call, through the real binary.

mod approvals;
mod corpus;
mod headless;
#[path = "../cli/house.rs"]
#[allow(dead_code, reason = "the tests of the command line use all of it")]
mod house;
mod scopes;
mod shell;
mod shown;
mod stage;
mod taint;
