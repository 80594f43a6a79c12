//! `reload`, and what else needs a server.

use super::house::{HELLO, House, agent};

#[test]
fn a_server_takes_a_good_configuration_and_refuses_a_bad_one() {
    let house = House::new(HELLO);
    let server = house.serve();
    house.write(".duragent/agents/second/agent.yaml", &agent("second", "tape"));
    assert!(!house.good(&["ls"]).contains("second"), "not before it is told to");
    assert_eq!(house.good(&["reload"]), "the server has taken the configuration\n");
    assert!(house.good(&["ls"]).contains("second"));
    house.write(".duragent/duragent.yaml", "sandbox: {mode: trust}\nlimit: 1\n");
    let error = house.bad(3, &["reload"]);
    assert!(error.contains("duragent.yaml:2:1: unknown key") && error.contains("the old one stays"), "{error}");
    assert!(house.good(&["ls"]).contains("second"), "the old one stays");
    server.stop();
    assert!(house.bad(1, &["reload"]).starts_with("error: no server is up in "));
}
