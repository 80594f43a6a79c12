//! The servers that ours is measured beside: an axum server that does nothing but these routes, and nginx with a file.

use crate::failure::{Failure, Result, at, fail};
use crate::scene::{Place, Server, free_address};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts the axum server of `benches/peers/axum`, which shows a session in `session_bytes` bytes.
pub fn axum(place: &Place, session_bytes: usize) -> Result<Server> {
    if !place.peer.is_file() {
        let path = place.peer.display();
        return fail(format!(
            "{path}: not found; `cargo xtask bench` builds it, or build benches/peers/axum and say --peer"
        ));
    }
    let (address, folder) = (free_address()?, place.folder()?);
    let mut command = Command::new(&place.peer);
    command.arg(address.to_string()).arg(&folder).arg(session_bytes.to_string());
    let server = Server::spawn(&mut command, address, &folder.join("server.log"))?;
    server.until("/livez")?;
    Ok(server)
}

/// One process, so that whoever ends it ends all of it; as many requests to a connection as come. All else is as nginx has
/// it without a word.
const NGINX: &str = "\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  default_type text/plain;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server { listen ADDRESS; root files; }
}
";

/// Starts nginx with a file `livez` that says `text`.
pub fn nginx(place: &Place, text: &str) -> Result<Server> {
    let (address, folder) = (free_address()?, place.folder()?);
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(at(&path))
    };
    fs::create_dir(folder.join("files")).map_err(at(&folder))?;
    put("files/livez", text)?;
    put("nginx.conf", &NGINX.replace("ADDRESS", &address.to_string()))?;
    let mut command = Command::new(nginx_binary()?);
    command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "error.log"]);
    let server = Server::spawn(&mut command, address, &folder.join("server.log"))?;
    server.until("/livez")?;
    Ok(server)
}

/// Where nginx is. What administrators run need not be in `PATH`.
pub fn nginx_binary() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    let found = folders.map(|folder| folder.join("nginx")).find(|path| path.is_file());
    found.ok_or_else(|| Failure("nginx: not found; install the Debian package nginx-light".to_owned()))
}
