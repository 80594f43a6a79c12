//! Where tools work: a service's sessions, artifacts, names that are hard to quote.

use super::yard::{ENCLOSING, SECRET, TRUST, USERS, Yard, bash, call};

/// Prints more than goes to the model: 3000 numbered lines.
const LARGE: &str = "seq -f 'line %g of a large output' 3000";

#[test]
fn a_large_output_is_kept_where_the_next_call_can_read_it() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("large", mode, user);
        // The path is known before: that of the session of this name, and of its first call.
        let artifact = yard.project().join(".duragent/sessions/big/artifacts/c1-1-1.txt").display().to_string();
        yard.play(&[
            bash(LARGE).told(&format!("are in {artifact}")),
            bash(&format!("tail -n 1 {artifact} && grep -c large {artifact}")),
            call("read_file", &[("path", &artifact), ("offset", "2999")]).told("expected"),
            bash(&format!("echo x >> {artifact}")).told(&format!("\"kind\":\"fs\",\"path\":\"{artifact}\"")),
        ]);
        let ended = yard.finish(&mut yard.command(&["run", "worker", "--session", "big", "go"]));
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Done.\n"), "{mode} {user:?}: {ended:?}");
        let seen = yard.seen("big");
        assert!(seen[0].outcome.truncated, "{seen:?}");
        assert_eq!(seen[0].outcome.artifact.as_deref(), Some("c1-1-1.txt"));
        assert_eq!(seen[1].outcome.result, "line 3000 of a large output\n3000\n", "{mode} {user:?}");
        assert_eq!(std::fs::read_to_string(&artifact).expect("it is there").lines().count(), 3000);
    }
}

/// A workspace that is not called `.duragent` belongs to a service, whose sessions work each in a folder of its own.
#[test]
fn a_session_of_a_service_has_its_own_place_and_sees_no_other() {
    for (mode, user) in ENCLOSING.into_iter().chain([TRUST]).flat_map(|mode| USERS.map(|user| (mode, user))) {
        let yard = Yard::new("service", mode, user);
        let service = yard.project().join("service");
        // So that all results fit into what the model is sent.
        yard.configure(&format!("mode: {mode}, limits: {{output_bytes: 1024}}"));
        yard.play(&[
            bash(&format!("{LARGE}; pwd > where; pwd")),
            bash(&format!("cat {0}/sessions/mine/artifacts/c1-1-1.txt | tail -n 1", service.display())),
            bash(&format!("cat {0}/sessions/other/artifacts/c1-1-1.txt", service.display())),
            bash(&format!("cat {0}/sessions/mine/events.jsonl", service.display())),
            bash(&format!("cat {0}/duragent.yaml ../../../duragent.yaml", service.display())),
            bash("cat ../events.jsonl; ls ..; ls ../../other/work; true"),
            call("read_file", &[("path", "../events.jsonl")]),
            call("read_file", &[("path", "../artifacts/c1-1-1.txt")]),
            call("write_file", &[("path", "made/by/file-tool"), ("content", "x")]),
        ]);
        std::fs::rename(yard.project().join(".duragent"), &service).expect("renamed");
        yard.house.write("service/sessions/other/artifacts/c1-1-1.txt", SECRET);
        yard.house.write("service/sessions/other/work/x", SECRET);
        let ended = yard.finish(&mut yard.command(&["--dir", "service", "run", "worker", "--session", "mine", "go"]));
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), "Done.\n"), "{mode} {user:?}: {ended:?}");
        let work = service.join("sessions/mine/work");
        assert_eq!(yard.house.read("service/sessions/mine/work/where"), Some(format!("{}\n", work.display())));
        assert_eq!(yard.house.read("service/sessions/mine/work/made/by/file-tool").as_deref(), Some("x"));
        let results = yard.results("service", "mine");
        assert!(
            results[1].0.starts_with("line 3000") || results[1].0.contains(&work.display().to_string()),
            "{results:?}"
        );
        assert!(results[7].0.contains("line 1 of"), "{results:?}");
        for (at, (result, denied)) in results.iter().enumerate().take(7).skip(2) {
            let leaked = [SECRET, "session_created", "providers:"].iter().any(|text| result.contains(text));
            assert_eq!(leaked, mode == TRUST, "{mode} {user:?}: {result}");
            // The command of call 5 ends well, whatever it was told.
            assert_eq!(denied.as_deref(), (mode != TRUST && at != 5).then_some("fs"), "{mode} {user:?}: {result}");
        }
    }
}

/// A folder name with a space, both quotes, a dollar sign and letters beyond ASCII.
#[test]
fn names_that_are_hard_to_quote_are_names() {
    for (mode, user) in ENCLOSING.into_iter().flat_map(|mode| USERS.map(|user| (mode, user))) {
        for project in ["it's a \"größe\" $HOME 日本", "a\\b\tc:d,e=f%s"] {
            let yard = Yard::named("names", mode, user, project);
            yard.write_outside("data/in", "from outside\n");
            let data = yard.outside("data");
            yard.configure(&format!("mode: {mode}, read: [\"{data}\"]"));
            let before = yard.snapshot();
            let seen = yard.turn(&[
                bash(&format!(
                    "pwd; cat '{data}/in'; mkdir -p sub && echo hello > sub/made || echo hello > .duragent/x"
                )),
                call("write_file", &[("path", "sub dir/ü"), ("content", "x")]),
                call("read_file", &[("path", "sub dir/ü")]),
                bash("cat .duragent/duragent.yaml"),
            ]);
            let expected = format!("{}\nfrom outside\n", yard.project().display());
            assert!(seen[0].outcome.result.starts_with(&expected), "{mode} {user:?}: {seen:?}");
            assert!(seen[2].denied().is_none() && seen[2].outcome.result.contains('x'), "{mode} {user:?}: {seen:?}");
            let own = yard.project().join(".duragent/duragent.yaml").display().to_string();
            assert_eq!(seen[3].denied(), Some(("fs", own.as_str())), "{mode} {user:?}: {seen:?}");
            let mut after = yard.snapshot();
            after.retain(|path, _| {
                !path.starts_with(yard.project().join("sub")) && !path.starts_with(yard.project().join("sub dir"))
            });
            assert_eq!(after, before, "{mode} {user:?}");
        }
    }
}
