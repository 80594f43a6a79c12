//! Every provider as a black box: the binary in a workspace of its own, and a fake of the test kit where the model is, which
//! refuses what the real API refuses. What goes wrong on the wire is what the fakes can do; what a person gets to see is here.

mod astray;
mod away;
mod faults;
mod house;
mod keys;
mod models;
mod restart;
mod streams;
mod turns;
mod ways;
mod words;
