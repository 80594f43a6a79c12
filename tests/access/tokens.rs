//! Bearer tokens: where they come from, what they admit to, and that there is one where strangers can knock.

use crate::client::{bearer, unix};
use crate::house::{House, Served, polite};
use std::net::TcpListener;

/// Every door of the server, and who may go through it: nobody in particular, the token's holder, the admin token's holder.
fn admitted(served: &Served, line: &str, expected: [u16; 4]) {
    let answers = ["", "api", "adm", "other"].map(|token| {
        let header = if token.is_empty() { String::new() } else { bearer(token) };
        served.status(line, &header)
    });
    assert_eq!(answers, expected, "{line}: without a token, with api_token, with admin_token, with another");
}

#[test]
fn the_admin_token_admits_everywhere_and_the_other_not_to_administration() {
    let house = House::new("address: '127.0.0.1:0', api_token: api, admin_token: adm", &polite());
    let served = house.serve();
    admitted(&served, "GET /livez", [200; 4]);
    admitted(&served, "GET /readyz", [200; 4]);
    for line in ["GET /version", "GET /metrics", "GET /api/v1/agents", "GET /api/v1/sessions"] {
        admitted(&served, line, [401, 200, 200, 401]);
    }
    admitted(&served, "POST /api/admin/v1/reload", [401, 401, 200, 401]);
    // Who may not ask does not learn what is there, nor what can be done with it.
    for line in ["GET /nope", "POST /livez/x", "GET /api/v1/sessions/none"] {
        admitted(&served, line, [401, 404, 404, 401]);
    }
    for line in ["GET /api/admin/", "GET /api/admin/v1/nope", "GET /api/%61dmin/v1/nope"] {
        admitted(&served, line, [401, 401, 404, 401]);
    }
    admitted(&served, "PUT /version", [401, 405, 405, 401]);
}

#[test]
fn without_an_admin_token_the_other_admits_everywhere() {
    let house = House::new("address: '127.0.0.1:0', api_token: api", &polite());
    let served = house.serve();
    admitted(&served, "POST /api/admin/v1/reload", [401, 200, 401, 401]);
    admitted(&served, "GET /version", [401, 200, 401, 401]);
    // Alone it guards what it is there for, and nothing else.
    let house = House::new("address: '127.0.0.1:0', admin_token: adm", &polite());
    let served = house.serve();
    admitted(&served, "POST /api/admin/v1/reload", [401, 401, 200, 401]);
    admitted(&served, "GET /version", [200; 4]);
}

#[test]
fn one_form_of_authorization_is_understood() {
    let house = House::new("address: '127.0.0.1:0', api_token: api", &polite());
    let served = house.serve();
    for (header, status) in [
        ("Authorization: Bearer api\r\n", 200),
        ("authorization: bearer api\r\n", 200),
        ("Authorization: Bearer  api \r\n", 200),
        ("Authorization: api\r\n", 401),
        ("Authorization: Bearer\r\n", 401),
        ("Authorization: Bearer \r\n", 401),
        ("Authorization: Bearer apiapi\r\n", 401),
        ("Authorization: Bearer ap\r\n", 401),
        ("Authorization: Basic api\r\n", 401),
        ("Authorization: Bearer api, Bearer api\r\n", 401),
        ("Authorization: Bearer api\r\nAuthorization: Bearer api\r\n", 400),
        ("X-Authorization: Bearer api\r\n", 401),
    ] {
        assert_eq!(served.status("GET /version", header), status, "{header:?}");
    }
    assert_eq!(served.status("GET /version?access_token=api", ""), 401, "a token in an address ends up in logs");
    let refused = served.reply("GET /version", "", "");
    assert!(refused.head.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{}", refused.head);
}

#[test]
fn tokens_come_from_files_and_from_the_environment() {
    let house = House::new("address: '127.0.0.1:0', api_token: '${TOKEN}', admin_token_file: admin", &polite());
    house.write(".duragent/admin", "adm\n");
    let served = Served::start(&mut house.command(&["serve"], &[("TOKEN", "api")]));
    admitted(&served, "GET /version", [401, 200, 200, 401]);
    admitted(&served, "POST /api/admin/v1/reload", [401, 401, 200, 401]);
}

#[test]
fn no_server_without_a_token_where_others_can_knock() {
    let open = House::new("address: '0.0.0.0:0'", &polite());
    let near = House::new("address: '127.0.0.1:0'", &polite());
    for (house, args) in [
        (&open, &["serve"][..]),
        (&near, &["serve", "--listen", "0.0.0.0:0"]),
        (&near, &["serve", "--listen", "127.0.0.1:0", "--listen", "[::]:0"]),
    ] {
        let output = house.command(args, &[]).output().expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {said}");
        assert!(said.contains("token") && !said.contains("listening"), "{args:?}: {said}");
    }
    // The control: with a token the same address is served.
    let house = House::new("address: '0.0.0.0:0', api_token: api", &polite());
    let mut served = house.serve();
    served.address = served.address.map(|address| ([127, 0, 0, 1], address.port()).into());
    admitted(&served, "GET /version", [401, 200, 401, 401]);
}

#[test]
fn a_server_that_cannot_start_leaves_nobody_waiting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback can be had");
    let address = taken.local_addr().expect("an address");
    let house = House::new(&format!("address: '{address}'"), &polite());
    let output = house.command(&["serve"], &[]).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(std::os::unix::net::UnixStream::connect(house.socket()).is_err());
    drop(taken);
    let _served = house.serve();
    drop(unix(&house.socket()));
}
