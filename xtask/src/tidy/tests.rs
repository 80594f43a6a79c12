use super::*;

/// Checks `text` as the file `path` and compares the lines on which `rule` is broken. Other rules must not be broken.
fn check(rule: Rule, path: &str, text: &str, lines: &[usize]) {
    let mut report = Report::default();
    check_file(path, text, &[], &Ratchet::default(), &mut report);
    let (found, other): (Vec<_>, Vec<_>) = report.violations.into_iter().partition(|v| v.rule == rule);
    assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), lines, "{path}:\n{text}\n{found:#?}");
    assert_eq!(other, [], "{path}:\n{text}");
}

fn breaks(rule: Rule, path: &str, line: &str) {
    check(rule, path, &format!("fn f() {{\n    {line}\n}}\n"), &[2]);
}

fn keeps(rule: Rule, path: &str, line: &str) {
    check(rule, path, &format!("fn f() {{\n    {line}\n}}\n"), &[]);
}

#[test]
fn imports_go_one_way() {
    for (path, line) in [
        ("src/store/file/log.rs", "use crate::session::api;"),
        ("src/store/mod.rs", "use crate::provider::Provider;"),
        ("src/provider/ollama.rs", "crate::tool::run();"),
        ("src/tool/mod.rs", "use super::store;"),
        ("src/tool/builtin/bash.rs", "use super::super::super::session;"),
        ("src/session/actor.rs", "use crate::http;"),
        ("src/session/mod.rs", "use crate::config::Config;"),
        ("src/http/mod.rs", "let x: duragent::cli::X = y;"),
        ("src/http/mod.rs", "use crate::{gateway::Host, session};"),
        ("src/http/mod.rs", "use crate::{self as d, session::{api, self}, schedule as s};"),
        ("src/config/mod.rs", "use crate::session::api::Status;"),
        ("src/gateway/mod.rs", "mod inner { use super::super::cli::main; }"),
        ("src/core/src/json.rs", "use duragent_platform::cancel;"),
        ("src/core/src/json.rs", "let x = duragent::cli::main();"),
        ("platform/src/lib.rs", "use duragent::session;"),
        ("xtask/src/main.rs", "use duragent_core::json;"),
    ] {
        breaks(Rule::Imports, path, line);
    }
    for (path, line) in [
        ("src/store/file/log.rs", "use crate::store::Log;"),
        ("src/store/file/log.rs", "use super::super::Log;"),
        ("src/store/mod.rs", "use duragent_core::event; use duragent_platform::cancel::Cancel;"),
        ("src/provider/mod.rs", "// use crate::session;"),
        ("src/provider/mod.rs", "let s = \"crate::session\"; let r = r#\"\"crate::tool\"#;"),
        ("src/session/mod.rs", "use crate::{provider, store, tool::{Tool, Context}};"),
        ("src/http/api.rs", "use super::session::x;"),
        ("src/http/mod.rs", "mod tests { use super::session; }"),
        ("src/gateway/mod.rs", "use crate::session::api;"),
        ("src/cli/mod.rs", "use crate::{config, gateway, http, provider, schedule, session, store, tool};"),
        ("src/main.rs", "duragent::cli::main()"),
        ("src/lib.rs", "use crate::config;"),
        ("platform/src/lib.rs", "use duragent_core::event;"),
        ("tests/http/main.rs", "use duragent::{cli, http};"),
    ] {
        keeps(Rule::Imports, path, line);
    }
    check(
        Rule::Imports,
        "src/tool/x.rs",
        "use crate::{\n    tool::Tool,\n    session::api,\n    provider,\n};\n",
        &[3, 4],
    );
    check(Rule::Imports, "src/metrics/mod.rs", "//! A module nobody gave a place.\n", &[1]);
}

#[test]
fn unsafe_and_libc_stay_in_the_platform_crate() {
    breaks(Rule::Unsafe, "src/store/mod.rs", "unsafe { go() }");
    breaks(Rule::Unsafe, "src/core/src/json.rs", "unsafe fn f() {}");
    breaks(Rule::Unsafe, "tests/http/main.rs", "unsafe { go() }");
    breaks(Rule::Unsafe, "src/store/mod.rs", "let x = libc::getpid;");
    breaks(Rule::Unsafe, "src/store/mod.rs", "use libc;");
    keeps(Rule::Unsafe, "platform/src/file.rs", "unsafe { libc::fsync(1) }");
    keeps(Rule::Unsafe, "tests/sandbox/kernel.rs", "unsafe { libc::fork() }");
    keeps(Rule::Unsafe, "src/store/mod.rs", "/* unsafe { libc::x } */ let unsafe_code = \"unsafe\";");
    check(Rule::Unsafe, "src/core/src/lib.rs", "#![forbid(unsafe_code)]\n", &[]);
}

#[test]
fn one_file_names_the_yaml_library() {
    breaks(Rule::Yaml, "src/config/mod.rs", "serde_yaml::from_str(x)");
    breaks(Rule::Yaml, "tests/config.rs", "use serde_yaml::Value;");
    keeps(Rule::Yaml, "src/config/yaml.rs", "serde_yaml::from_str(x)");
    keeps(Rule::Yaml, "src/config/mod.rs", "// serde_yaml is behind yaml.rs");
}

#[test]
fn only_config_reads_the_environment() {
    breaks(Rule::Environment, "src/provider/mod.rs", "std::env::var(\"X\")");
    breaks(Rule::Environment, "src/cli/mod.rs", "use std::env::{args, var_os};");
    breaks(Rule::Environment, "platform/src/notify.rs", "env::vars_os()");
    keeps(Rule::Environment, "src/config/env.rs", "std::env::var(\"X\")");
    keeps(Rule::Environment, "build.rs", "std::env::var(\"TARGET\")");
    keeps(
        Rule::Environment,
        "src/cli/mod.rs",
        "let x = (std::env::args(), env!(\"CARGO_PKG_VERSION\"), env::temp_dir());",
    );
    keeps(Rule::Environment, "src/cli/mod.rs", "#[cfg(test)] mod tests { fn f() { std::env::var(\"X\") } }");
}

#[test]
fn calls_that_end_the_process_stay_in_tests() {
    for line in [
        "x.unwrap();",
        "x\n.expect(\"why\");",
        "x.expect(WHY);",
        "self.x.expect(&format!(\"{}, {}\", a, b));",
        "panic!();",
        "todo!()",
        "unimplemented!()",
        "dbg!(x);",
        "#[cfg(not(test))] x.unwrap();",
    ] {
        let line = line.replace('\n', "");
        breaks(Rule::Panics, "src/session/mod.rs", &line);
        breaks(Rule::Panics, "xtask/src/main.rs", &line);
        keeps(Rule::Panics, "src/session/tests.rs", &line);
        keeps(Rule::Panics, "tests/crash/main.rs", &line);
    }
    for line in [
        "x.unwrap_or_default(); x.unwrap_or_else(PoisonError::into_inner);",
        "self.expect(b'\"', \"expected a string\")?; self.expect(kind)?; reader.expect(b':')?; p.expect(':', \"x\")?;",
        "// x.unwrap()",
        "let s = \"panic!\"; let c = '\"'; let t = \"x.unwrap()\";",
        "let r = r##\"a\"# .unwrap() \"##; let b = b\"\\\".unwrap()\"; let l: &'static str = s;",
        "std::panic::catch_unwind(f);",
    ] {
        keeps(Rule::Panics, "src/session/mod.rs", line);
    }
    let text = "fn a() { x.unwrap() }\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    fn b() { { x.unwrap() } }\n}\nfn c() { x.unwrap() }\n";
    check(Rule::Panics, "src/store/mod.rs", text, &[1, 7]);
    let text = "#[cfg(test)]\nmod tests;\n\nfn c() { x.unwrap() }\n#[cfg(all(test, unix))]\nfn d() { x.unwrap() }\n";
    check(Rule::Panics, "src/store/mod.rs", text, &[4]);
    check(Rule::Panics, "src/store/mod.rs", "/// ```\n/// x.unwrap();\n/// ```\nfn f() {}\n", &[]);
}

#[test]
fn a_module_that_only_tests_see_is_test_code() {
    let declared =
        |path: &str| Source::new(path, "#[cfg(test)]\nmod testing;\nmod wire;\n#[cfg(test)] mod t {}").test_modules();
    assert_eq!(declared("src/provider/mod.rs"), ["src/provider/testing"]);
    assert_eq!(declared("src/provider/http.rs"), ["src/provider/http/testing"]);
    assert_eq!(declared("src/lib.rs"), ["src/testing"]);
    for (path, broken) in [
        ("src/provider/testing.rs", 0),
        ("src/provider/testing/server.rs", 0),
        ("src/provider/testing_more.rs", 1),
        ("src/provider/mod.rs", 1),
    ] {
        let mut report = Report::default();
        let modules = declared("src/provider/mod.rs");
        check_file(path, "fn f() { x.unwrap() }\n", &modules, &Ratchet::default(), &mut report);
        assert_eq!(report.violations.len(), broken, "{path}");
    }
}

#[test]
fn only_the_command_line_prints() {
    for line in ["println!(\"x\");", "eprintln!();", "print!(\"x\");", "eprint!(\"x\");"] {
        breaks(Rule::Prints, "src/http/mod.rs", line);
        breaks(Rule::Prints, "platform/src/lib.rs", line);
        keeps(Rule::Prints, "src/cli/run.rs", line);
        keeps(Rule::Prints, "build.rs", line);
        keeps(Rule::Prints, "xtask/src/size.rs", line);
        keeps(Rule::Prints, "src/http/mod.rs", &format!("#[cfg(test)] mod tests {{ fn f() {{ {line} }} }}"));
    }
    keeps(Rule::Prints, "src/http/mod.rs", "writeln!(f, \"x\")?; self.print(); // println!");
}

#[test]
fn no_result_of_a_write_is_thrown_away() {
    for line in [
        "let _ = file.sync_all();",
        "let _ = self.out.lock().flush();",
        "let _ = pipe.write(&[1]);",
        "drop(file.sync_data());",
        "file.flush().ok();",
        "out.write_all(b\"x\").ok();",
    ] {
        breaks(Rule::DroppedResults, "src/store/file/log.rs", line);
        keeps(Rule::DroppedResults, "src/store/file/tests.rs", line);
    }
    for line in [
        "file.sync_all()?;",
        "let _ = write!(text, \"x\");",
        "let _guard = lock.write();",
        "let ok = file.flush().ok();",
        "let _ = child.wait(); file.flush()?;",
        "drop(file); file.flush()?;",
    ] {
        keeps(Rule::DroppedResults, "src/store/file/log.rs", line);
    }
}

#[test]
fn a_line_is_excused_with_a_reason_only() {
    let path = "src/session/mod.rs";
    check(Rule::Panics, path, "fn f() {\n    // tidy-allow(panics): the constant parses\n    x.unwrap()\n}\n", &[]);
    check(Rule::Panics, path, "fn f() {\n    x.unwrap() // tidy-allow(panics): the constant parses\n}\n", &[]);
    check(Rule::Panics, path, "fn f() {\n    // tidy-allow(panics):\n    x.unwrap()\n}\n", &[3]);
    check(Rule::Panics, path, "fn f() {\n    // tidy-allow(prints): another rule\n    x.unwrap()\n}\n", &[3]);
    check(Rule::Panics, path, "fn f() {\n    // tidy-allow(panics): too far away\n\n    x.unwrap()\n}\n", &[4]);
}

#[test]
fn files_past_the_limit_may_only_shrink() {
    let file = |n: usize| "fn f() {}\n".repeat(n);
    let listed = Ratchet { lines: vec![("src/cli/big.rs".into(), 600)], absent: vec![] };
    for (path, count, broken) in [
        ("src/cli/new.rs", 500, false),
        ("src/cli/new.rs", 501, true),
        ("src/cli/new/tests.rs", 900, false),
        ("docs/guide.md", 900, false),
        ("src/cli/big.rs", 600, false),
        ("src/cli/big.rs", 601, true),
        ("src/cli/big.rs", 599, true),
    ] {
        let mut report = Report::default();
        listed.check(path, &file(count), &mut report);
        assert_eq!(report.violations.len(), usize::from(broken), "{path} {count}");
    }
}

#[test]
fn the_ratchet_only_tightens() {
    let text = "# x\n\nlines 600 a.rs\nlines 600 b.rs\nlines 600 c.rs\nlines 600 d.rs\nabsent docs\nabsent cross\n";
    let mut ratchet = Ratchet::parse(text).expect("is well-formed");
    let sizes = [("a.rs", 550), ("b.rs", 500), ("d.rs", 700)];
    ratchet.tighten(|path| sizes.iter().find(|(p, _)| *p == path).map(|(_, n)| *n), &["docs".to_owned()]);
    assert_eq!(ratchet.lines, [("a.rs".into(), 550), ("d.rs".into(), 600)]);
    assert_eq!(ratchet.absent, ["cross"]);
    assert_eq!(Ratchet::parse(&ratchet.to_text()), Ok(ratchet));
    for bad in ["lines x a.rs", "lines 5", "ignore a.rs", "absent"] {
        assert!(Ratchet::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn text_is_clean_at_its_ends() {
    check(Rule::Space, "docs/a.md", "a \nb\t\nc\r\nd\n", &[1, 2, 3]);
    check(Rule::Space, "docs/a.md", "a\nb", &[2]);
    check(Rule::Space, "src/cli/a.rs", "fn f() {\n\tg();\n}\n", &[2]);
    check(Rule::Space, "docs/a.md", "a\tb\n\nc\n", &[]);
    check(Rule::Space, "tests/golden/a.case", "> a \n", &[]);
    check(Rule::Space, "src/cli/empty.rs", "", &[]);
}

#[test]
fn unfinished_work_names_an_issue() {
    let (todo, fixme) = (concat!("TO", "DO"), concat!("FIX", "ME"));
    check(Rule::Unfinished, "src/cli/a.rs", &format!("// {todo}: later\n// {fixme}\n// {todo}(#12): later\n"), &[1, 2]);
    check(Rule::Unfinished, "docs/a.md", &format!("{todo}\nMAS{todo}N {todo}S {todo}_MAX todo\n"), &[1]);
}

#[test]
fn nothing_names_a_place_of_one_machine() {
    let (own, root, registry) = (concat!("/work", "/wt"), concat!("/ro", "ot/"), concat!("index.", "crates.io"));
    check(Rule::Places, "docs/a.md", &format!("see {own}/x\n"), &[1]);
    check(Rule::Places, "src/cli/a.rs", &format!("// see `{own}/x`\n"), &[1]);
    check(Rule::Places, "docs/a.md", &format!("{root}.ssh\nhttps://{registry}/x\n"), &[1, 2]);
    check(Rule::Places, "src/cli/a.rs", &format!("// hides {root}.ssh\n"), &[]);
    check(Rule::Places, "docs/a.md", &format!("`sessions/<id>{own}` /home/pi\n"), &[]);
    check(Rule::Places, "deny.toml", &format!("{registry}\n"), &[]);
}

#[test]
fn a_mask_keeps_every_byte_in_its_place() {
    for (text, masked) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ \n */ d", "a              \n    d"),
        ("\"a\\\"b\" c", "\"    \" c"),
        ("r#\"a\"b\"# c", "r\"     # c".replace("r\"     #", "r#\"    #").as_str()),
        ("'a' 'b '\\'' '\\u{1}' 'ä'", "' ' 'b '  ' '     ' '  '"),
        ("br\"\\\" x", "br\" \" x"),
        ("for\"x\"", "for\" \""),
        ("\"open", "\"   n"),
    ] {
        assert_eq!(source::mask(text), masked, "{text}");
        assert_eq!(source::mask(text).len(), text.len(), "{text}");
    }
}

#[test]
fn every_cut_of_a_source_is_survived() {
    let text = "#[cfg(test)]\nmod t { 'a' '\\'' r#\"x\"# /* y */ b\"z\" \"\\\\\" use crate::{a::{b, c as d}, e}; x.expect(1) }\nlet _ = f.flush()";
    for end in (0..=text.len()).filter(|&n| text.is_char_boundary(n)) {
        check_file("src/store/cut.rs", &text[..end], &[], &Ratchet::default(), &mut Report::default());
    }
}
