//! What a model is told, as it goes over the wire: AGENTS.md, skills, the size of the first request, and the next request as
//! `duragent session show --prompt` prints it. The binary is a black box, and its model a server that keeps what it is sent.

mod footprint;
mod guides;
mod house;
mod model;
mod prompt;
mod reference;
mod skill;
