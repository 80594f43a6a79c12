//! `GET /metrics`: the Prometheus text format 0.0.4.
//!
//! Invariants: no label has values from outside but names of tools, of which there are few; nothing is read from disk but
//! what the kernel says of this process.

use super::shared::Shared;
use crate::session::meter::{Counts, Histogram};
use duragent_core::json::write_u64;
use duragent_platform::{log, usage, wear};
use std::sync::atomic::Ordering;

/// What `Content-Type` says.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything there is to tell.
pub(super) fn text(shared: &Shared) -> String {
    let mut page = Page { out: String::with_capacity(16 * 1024), name: "", prefix: "duragent_" };
    let (tally, gauges, traffic) = (shared.runtime.tally(), shared.runtime.gauges(), shared.traffic());
    page.one("build_info", GAUGE, "What is running; always 1.", |page| {
        let commit = option_env!("DURAGENT_COMMIT").unwrap_or_default();
        page.sample("", &[("version", env!("CARGO_PKG_VERSION")), ("commit", commit)], 1);
    });
    page.number("sessions_live", GAUGE, "Sessions in memory.", gauges.sessions_live);
    page.labelled("sessions", GAUGE, "Sessions in memory, by status.", "status", &gauges.sessions);
    page.number("mailbox_commands", GAUGE, "Commands that wait for sessions.", gauges.commands);
    let pools = |pick: fn(crate::session::Depth) -> u64| gauges.pools.map(|(name, depth)| (name, pick(depth)));
    page.labelled("pool_jobs", GAUGE, "Jobs that wait for a thread, by pool.", "pool", &pools(|depth| depth.jobs));
    page.labelled("pool_threads", GAUGE, "Threads, by pool.", "pool", &pools(|depth| depth.threads));
    page.number("subscribers", GAUGE, "Those who follow a session.", tally.subscribers());
    page.counts(&tally.counts);
    page.histogram("fsync_seconds", "Time of fdatasync in commits.", &tally.fsync);
    page.histogram("commit_bytes", "Bytes of commits.", &tally.commit_bytes);
    page.histogram("model_call_seconds", "Time of model calls, however they ended.", &tally.model);
    page.one("tool_call_seconds", "histogram", "Time of tool calls, by tool, however they ended.", |page| {
        tally.each_tool(&mut |tool, histogram| page.buckets(("tool", tool), histogram));
    });
    page.number("http_connections", GAUGE, "Open connections.", traffic.connections);
    let states = "Open connections, by what they do.";
    page.labelled("http_connections_by_state", GAUGE, states, "state", &traffic.states);
    page.number("http_connections_total", COUNTER, "Connections taken.", traffic.accepted);
    page.number("http_connections_refused_total", COUNTER, "Connections over the limit.", traffic.refused);
    let given_up = "Waiting connections closed for others.";
    page.number("http_connections_given_up_total", COUNTER, given_up, traffic.given_up);
    page.counts(&shared.meter.counts);
    let full = "1 while the disk takes nothing and nothing new is begun.";
    page.number("disk_full", GAUGE, full, u64::from(shared.runtime.is_disk_full()));
    for (name, help, numbers) in [
        ("disk_written_bytes_total", "Bytes written to files, by what they were for.", wear::written_bytes()),
        ("fsyncs_total", "Files and directories synced, by what they were for.", wear::syncs()),
    ] {
        let mut values = wear::NAMES.map(|what| (what, 0));
        values.iter_mut().zip(numbers).for_each(|((_, value), number)| *value = number);
        page.labelled(name, COUNTER, help, "what", &values);
    }
    page.number("log_lines_dropped_total", COUNTER, "Log lines that nobody read.", log::dropped());
    page.process();
    page.out
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// The page as it grows.
struct Page {
    out: String,
    /// Of the family that is being written.
    name: &'static str,
    /// Of all names.
    prefix: &'static str,
}

impl Page {
    fn push(&mut self, parts: &[&str]) {
        self.out.extend(parts.iter().copied());
    }

    /// A family: its head, then what `fill` writes.
    fn one(&mut self, name: &'static str, kind: &str, help: &str, fill: impl FnOnce(&mut Self)) {
        self.head(name, "", kind, help);
        fill(self);
    }

    fn head(&mut self, name: &'static str, ending: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        self.name = name;
        self.push(&["# HELP ", prefix, name, ending, " ", help, "\n# TYPE ", prefix, name, ending, " ", kind, "\n"]);
    }

    fn number(&mut self, name: &'static str, kind: &str, help: &str, value: u64) {
        self.labelled(name, kind, help, "", &[("", value)]);
    }

    fn labelled(&mut self, name: &'static str, kind: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(name, "", kind, help);
        for (text, value) in values {
            self.sample("", &[(label, text)], *value);
        }
    }

    fn counts(&mut self, counts: &Counts) {
        counts.each(&mut |family, cells| {
            self.head(family.name, "_total", COUNTER, family.help);
            for (text, cell) in family.values.iter().zip(cells) {
                self.sample("_total", &[(family.label, text)], cell.load(Ordering::Relaxed));
            }
        });
    }

    fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        self.one(name, "histogram", help, |page| page.buckets(("", ""), histogram));
    }

    /// The lines of one histogram. The last bucket is the number of all observations.
    fn buckets(&mut self, label: (&str, &str), histogram: &Histogram) {
        let (counts, sum) = histogram.read();
        let words = histogram.buckets.words.split(' ').chain(["+Inf"]);
        let mut last = 0;
        for (word, count) in words.zip(counts) {
            self.begin("_bucket", &[label, ("le", word)]);
            self.decimal(count, 1);
            last = count;
        }
        self.begin("_sum", &[label]);
        self.decimal(sum, histogram.buckets.scale);
        self.sample("_count", &[label], last);
    }

    fn sample(&mut self, ending: &str, labels: &[(&str, &str)], value: u64) {
        self.begin(ending, labels);
        self.decimal(value, 1);
    }

    /// Name and labels. A label without a name is none.
    fn begin(&mut self, ending: &str, labels: &[(&str, &str)]) {
        let (prefix, name) = (self.prefix, self.name);
        self.push(&[prefix, name, ending]);
        let mut open = '{';
        for (label, value) in labels.iter().filter(|(label, _)| !label.is_empty()) {
            self.out.push(open);
            self.push(&[label, "=\""]);
            for c in value.chars() {
                match c {
                    '\n' => self.out.push_str("\\n"),
                    '"' | '\\' => {
                        self.out.push('\\');
                        self.out.push(c);
                    }
                    _ => self.out.push(c),
                }
            }
            self.out.push('"');
            open = ',';
        }
        self.out.push_str(if open == ',' { "} " } else { " " });
    }

    /// `value` / `scale`, which is a power of ten, and the end of the line.
    fn decimal(&mut self, value: u64, scale: u64) {
        write_u64(&mut self.out, value / scale);
        let (mut rest, mut scale) = (value % scale, scale);
        if rest > 0 {
            self.out.push('.');
        }
        while rest > 0 {
            scale /= 10;
            write_u64(&mut self.out, rest / scale);
            rest %= scale;
        }
        self.out.push('\n');
    }

    /// Under the names that every client library gives them.
    fn process(&mut self) {
        let Some(usage) = usage::of_this_process() else { return };
        self.prefix = "process_";
        self.number("resident_memory_bytes", GAUGE, "Bytes of memory that are really there.", usage.resident_bytes);
        self.number("open_fds", GAUGE, "Open descriptors.", usage.descriptors);
        self.number("threads", GAUGE, "Threads.", usage.threads);
        self.one("cpu_seconds_total", COUNTER, "Processor time.", |page| {
            page.begin("", &[]);
            page.decimal(usage.cpu_ms, 1000);
        });
        let help = "When it began, since the Unix epoch.";
        self.number("start_time_seconds", GAUGE, help, usage.started_s);
    }
}
