//! A machine that nobody looks at: its disk is full or read-only, its clock is wrong, its network comes late, its logs and
//! sessions grow. The binary as a black box, in mount namespaces of its own.

mod clock;
mod disk;
#[path = "../operator/house.rs"]
#[allow(dead_code, reason = "others need more of it")]
mod house;
mod logs;
mod mounts;
mod network;
#[path = "../operator/page.rs"]
#[allow(dead_code, reason = "others need more of it")]
mod page;
mod retention;
mod root;
