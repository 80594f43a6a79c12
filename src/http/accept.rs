//! Content negotiation by `Accept` (RFC 9110 section 12.5.1), for the few media types we speak.

use super::problem::{self, Problem};
use duragent_core::http_head::Head;

/// The offer that the client likes best; among equals the one that is offered first.
pub(super) fn choose(head: &Head<'_>, offers: &[&'static str]) -> Result<&'static str, Problem> {
    let lines: Vec<&[u8]> = head.all("accept").collect();
    let mut best = (0, 0, "");
    for offer in offers {
        let (specificity, quality) = if lines.is_empty() { (0, 1000) } else { rate(&lines, offer) };
        let better = best.2.is_empty() || (quality, specificity) > (best.0, best.1);
        if quality > 0 && better {
            best = (quality, specificity, offer);
        }
    }
    if best.2.is_empty() {
        let detail = format!("expected Accept to allow {}", offers.join(" or "));
        return Err(Problem::new(problem::NOT_ACCEPTABLE, detail));
    }
    Ok(best.2)
}

/// Specificity and quality (in thousandths) of the most specific range that matches.
fn rate(lines: &[&[u8]], offer: &str) -> (u8, u16) {
    let kind = offer.split_once('/').map_or("", |(kind, _)| kind);
    let mut best = (0, 0);
    let ranges = lines.iter().filter_map(|line| std::str::from_utf8(line).ok()).flat_map(|line| line.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let specificity = match name.split_once('/') {
            _ if name.eq_ignore_ascii_case(offer) => 3,
            Some((k, "*")) if k.eq_ignore_ascii_case(kind) => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let quality =
            parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q="))).map_or(1000, thousandths);
        if specificity > best.0 {
            best = (specificity, quality);
        }
    }
    best
}

/// `0.5` is 500. What is no quality counts as 0: a range that cannot be understood admits nothing.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().chain(*b"000").take(3);
    match whole {
        "1" => 1000,
        "0" => digits.fold(0, |n, b| n * 10 + u16::from(b.wrapping_sub(b'0').min(9))),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::choose;
    use duragent_core::http_head::parse;

    #[test]
    fn the_best_liked_offer_is_chosen() {
        const JSON: &str = "application/json";
        const EVENTS: &str = "text/event-stream";
        let cases: &[(&str, Option<&str>)] = &[
            ("", Some(JSON)),
            ("Accept: */*\r\n", Some(JSON)),
            ("Accept: text/event-stream\r\n", Some(EVENTS)),
            ("Accept: Text/Event-Stream; charset=utf-8\r\n", Some(EVENTS)),
            ("Accept: text/event-stream, */*\r\n", Some(EVENTS)),
            ("Accept: text/*, */*;q=0.9\r\n", Some(EVENTS)),
            ("Accept: application/json, text/event-stream\r\n", Some(JSON)),
            ("Accept: application/json;q=0.5, text/event-stream;q=0.501\r\n", Some(EVENTS)),
            ("Accept: text/event-stream;q=0.2\r\nAccept: application/json\r\n", Some(JSON)),
            ("Accept: text/event-stream;q=0, */*\r\n", Some(JSON)),
            ("Accept: application/json;q=x, text/event-stream;q=0.1\r\n", Some(EVENTS)),
            ("Accept: text/html\r\n", None),
            ("Accept: application/json;q=0\r\n", None),
            ("Accept:\r\n", None),
        ];
        for (line, expected) in cases {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
            let head = parse(text.as_bytes()).expect("a head");
            assert_eq!(choose(&head, &[JSON, EVENTS]).ok(), *expected, "{line:?}");
        }
    }
}
