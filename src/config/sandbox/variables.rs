//! Which variables of the runtime's environment may pass into a sandbox.

/// What `LD_…` and the others change is which code runs, or what the runtime says itself.
const REFUSED: [(&str, &str); 4] = [
    ("BASH_ENV", "names a file that every bash runs first"),
    ("ENV", "names a file that shells run first"),
    ("IFS", "changes how shells read what they are told"),
    ("LD_", "changes which code programs load"),
];

/// A proxy is chosen by `sandbox.network`.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Checks one name. `shown` is how a message may show it.
///
/// # Errors
/// Why it does not pass.
pub fn check(name: &str, shown: &str, is_secret: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
        let remedy = if name.contains('=') { "; values are taken from the environment of duragent" } else { "" };
        return Err(format!("expected the name of a variable, of letters, digits and _, found {shown}{remedy}"));
    }
    let cannot = |why: &str| Err(format!("{shown} cannot pass: it {why}"));
    if let Some((_, why)) =
        REFUSED.iter().find(|(known, _)| name == *known || (*known == "LD_" && name.starts_with(known)))
    {
        return cannot(why);
    }
    if name.starts_with("DURAGENT_") {
        return cannot("is said by duragent itself");
    }
    if PROXIES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return cannot("names a proxy, and the way out is what network says");
    }
    if is_secret(name) {
        return cannot("holds a secret, and secrets never pass");
    }
    Ok(())
}
