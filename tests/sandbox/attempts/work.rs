//! What must be possible inside: tools are there to work.

use super::{Attempt, OK};
use crate::inside::{Inside, create, overwrite, read};
use crate::kernel::{Answer, Refused, fork, kill, wait};
use duragent_platform::sandbox::policy::Network;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

pub const ATTEMPTS: &[Attempt] = &[
    Attempt::work("work: make, change, rename and remove files", files),
    // Beside protected names a shell cannot make new ones there; file tools can.
    Attempt::new("work: make files beside protected ones", |_| create("new.txt"), OK, "EACCES"),
    Attempt::work("work: read the artifacts of the session", |i| {
        read(i.workspace.join("sessions/mine/artifacts/big.txt"))
    }),
    Attempt::work("work: read the artifacts of the session, as a service", |i| {
        read(i.root.join("service/sessions/mine/artifacts/big.txt"))
    })
    .in_service(),
    Attempt::work("work: make files, as a service", |_| create("made/by/a/tool.txt")).in_service(),
    Attempt::work("work: read .bashrc and .git/config", |_| {
        read(".bashrc")?;
        read(".git/config")
    }),
    Attempt::new(
        "work: commit to .git",
        |_| {
            create(".git/objects/ab/cdef")?;
            create(".git/refs/heads/main")?;
            create(".git/HEAD.lock")?;
            Ok(fs::rename(".git/HEAD.lock", ".git/HEAD")?)
        },
        OK,
        "EACCES",
    ),
    Attempt::work("work: write to /dev/null, read /dev/urandom", |_| {
        overwrite("/dev/null")?;
        read("/dev/urandom")
    }),
    Attempt::work("work: run a shell and programs", |_| {
        let output = Command::new("sh").args(["-c", "cat notes.txt | wc -l && ls /usr > /dev/null"]).output()?;
        match output.stdout.as_slice() {
            b"1\n" if output.status.success() => Ok(()),
            _ => Err(Refused::Nothing("the shell failed")),
        }
    }),
    Attempt::work("work: end one's own children", |_| {
        let child = fork(|| {
            loop {
                std::thread::park();
            }
        })?;
        kill(child, libc::SIGTERM)?;
        match libc::WTERMSIG(wait(child)?) {
            libc::SIGTERM => Ok(()),
            _ => Err(Refused::Nothing("it lived")),
        }
    }),
    Attempt::work("work: threads and a pair of sockets", |_| {
        let (mut one, mut other) = UnixStream::pair()?;
        let thread = std::thread::Builder::new().spawn(move || one.write_all(b"x"))?;
        other.read_exact(&mut [0])?;
        thread.join().map_err(|_| Refused::Nothing("the thread panicked"))??;
        Ok(())
    }),
    Attempt::work("work: write to a directory that the policy lists", |i| create(i.outside.join("open/new.txt")))
        .with(|house, policy| policy.write = vec![house.root.join("outside/open")]),
    Attempt::new("work: talk to oneself over loopback", talk_to_oneself, OK, "not started")
        .with(|_, policy| policy.network = Network::Loopback),
];

fn files(_: &Inside) -> Answer {
    create("src/new/file.txt")?;
    overwrite("src/new/file.txt")?;
    overwrite("notes.txt")?;
    fs::rename("src/new/file.txt", "src/moved.txt")?;
    fs::remove_file("src/moved.txt")?;
    Ok(fs::remove_dir_all("src/new")?)
}

fn talk_to_oneself(_: &Inside) -> Answer {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"x")?;
    Ok(server.read_exact(&mut [0])?)
}
