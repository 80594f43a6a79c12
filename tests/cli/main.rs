//! The command line, from outside: the binary, its two streams, its exit code. Models are transcripts.

mod approve;
mod bad_input;
mod house;
mod lists;
mod machine;
mod serve;
mod sessions;
