//! `run`, `chat` and `attach` as black boxes: the binary, a recorded model, real processes and signals.

mod chat;
mod enclosed;
mod house;
mod outage;
mod run;
mod sandbox;
