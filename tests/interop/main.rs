//! The official clients of the model APIs against the fakes of the test kit, so that the fakes are held to the real wire; and
//! somebody else's mock against our client.
//!
//! The clients are from PyPI, at the versions of `requirements.txt`; the mock is `@copilotkit/aimock` from npm, at the version of
//! `package-lock.json`. They live in folders of their own below the target directory. Without Python or Node there is no test, and
//! that is a failure.

mod aimock;
mod clients;
#[path = "../providers/house.rs"]
#[allow(dead_code, reason = "the tests of the providers need more of it")]
mod house;
