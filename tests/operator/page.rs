//! A strict reader of the Prometheus text format 0.0.4: it takes what we promise to write, not what others tolerate.

use std::collections::{BTreeMap, BTreeSet};

/// What `/metrics` said.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Families in order: name and kind.
    pub families: Vec<(String, String)>,
    /// By name and labels as they are written, `name{a="b"}`.
    pub samples: BTreeMap<String, f64>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// The first line that breaks a rule, and which.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut page = Self { families: Vec::new(), samples: BTreeMap::new() };
        let mut helped = String::new();
        if !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        for line in text.lines() {
            let told = |what: &str| format!("{what}: {line:?}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| told("no help"))?;
                if !help.ends_with('.') || page.families.iter().any(|(known, _)| known == name) {
                    return Err(told("help without a sentence, or a second time"));
                }
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| told("no type"))?;
                if name != helped || !["counter", "gauge", "histogram"].contains(&kind) {
                    return Err(told("a type without help, or an unknown one"));
                }
                if (kind == "counter") != name.ends_with("_total") {
                    return Err(told("counters and only they end in _total"));
                }
                page.families.push((name.to_owned(), kind.to_owned()));
            } else {
                page.sample(line).map_err(|what| told(&what))?;
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    fn sample(&mut self, line: &str) -> Result<(), String> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let (name, labels) = series.split_once('{').map_or((series, None), |(name, rest)| (name, Some(rest)));
        let letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
        if name.is_empty() || !name.bytes().all(letter) {
            return Err("a name of other letters".to_owned());
        }
        let (family, kind) = self.families.last().ok_or("a sample before its type")?;
        let rest = name.strip_prefix(family.as_str()).ok_or("a sample of another family")?;
        let fits = if kind == "histogram" { ["_bucket", "_sum", "_count"].contains(&rest) } else { rest.is_empty() };
        if !fits {
            return Err("not a sample of this kind of family".to_owned());
        }
        if let Some(labels) = labels {
            check_labels(labels.strip_suffix('}').ok_or("labels without an end")?)?;
        }
        let value: f64 = value.parse().map_err(|_| "not a number")?;
        if !value.is_finite() || value < 0.0 {
            return Err("not a number that can be".to_owned());
        }
        match self.samples.insert(series.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err("a second time".to_owned()),
        }
    }

    /// Buckets grow, the last one has no bound, and is the count; there is a sum.
    fn check_histograms(&self) -> Result<(), String> {
        for (family, _) in self.families.iter().filter(|(_, kind)| kind == "histogram") {
            let counts = self.samples.iter().filter(|(series, _)| series.starts_with(&format!("{family}_count")));
            let mut found = BTreeSet::new();
            for (series, count) in counts {
                let labels = series.trim_start_matches(&format!("{family}_count"));
                let sum = self.samples.get(&format!("{family}_sum{labels}")).ok_or(format!("{series}: no sum"))?;
                let inner = labels.trim_start_matches('{').trim_end_matches('}');
                let prefix = if inner.is_empty() { String::new() } else { format!("{inner},") };
                let start = format!("{family}_bucket{{{prefix}le=\"");
                let mut buckets: Vec<(f64, f64)> = Vec::new();
                for (bucket, value) in self.samples.iter().filter(|(s, _)| s.starts_with(&start)) {
                    let bound = bucket[start.len()..].trim_end_matches("\"}");
                    let bound =
                        if bound == "+Inf" { f64::INFINITY } else { bound.parse().map_err(|_| bucket.clone())? };
                    buckets.push((bound, *value));
                    found.insert(bucket.clone());
                }
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                let last = buckets.last().ok_or(format!("{series}: no buckets"))?;
                if !buckets.is_sorted_by(|a, b| a.1 <= b.1)
                    || *last != (f64::INFINITY, *count)
                    || (*count == 0.0 && *sum != 0.0)
                {
                    return Err(format!("{series}: {buckets:?}"));
                }
            }
            let all = self.samples.keys().filter(|series| series.starts_with(&format!("{family}_bucket")));
            if let Some(stray) = all.into_iter().find(|series| !found.contains(*series)) {
                return Err(format!("a bucket without a count: {stray}"));
            }
        }
        Ok(())
    }

    /// The sample of this name without its prefix, with labels as they are written.
    pub fn get(&self, series: &str) -> f64 {
        let own = self.samples.get(&format!("duragent_{series}")).or_else(|| self.samples.get(series));
        *own.unwrap_or_else(|| panic!("no sample {series} in {:#?}", self.samples.keys()))
    }

    /// What has changed since `before`, without its prefix, but for families that `skip` names by a part.
    pub fn since(&self, before: &Self, skip: &[&str]) -> Vec<(String, f64)> {
        assert_eq!(self.families, before.families, "families come and go");
        let changed = self.samples.iter().filter_map(|(series, value)| {
            let change = value - before.samples.get(series).copied().unwrap_or(0.0);
            let skipped = skip.iter().any(|part| series.contains(part));
            (change != 0.0 && !skipped).then(|| (series.trim_start_matches("duragent_").to_owned(), change))
        });
        changed.collect()
    }
}

/// `a="b",c="d"`, with `\\`, `\"` and `\n` as the only escapes.
fn check_labels(mut text: &str) -> Result<(), String> {
    loop {
        let (name, rest) = text.split_once("=\"").ok_or("a label without a value")?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            return Err("a label of other letters".to_owned());
        }
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next().ok_or("a value without an end")? {
                (at, '"') => break at,
                (_, '\\') => match characters.next() {
                    Some((_, '\\' | '"' | 'n')) => {}
                    _ => return Err("an unknown escape".to_owned()),
                },
                _ => {}
            }
        };
        match rest[end + 1..].strip_prefix(',') {
            Some(more) => text = more,
            None if rest.len() == end + 1 => return Ok(()),
            None => return Err("something behind a value".to_owned()),
        }
    }
}

#[test]
fn a_page_that_is_broken_is_refused() {
    let good = "# HELP a_total It counts.\n# TYPE a_total counter\na_total{x=\"\\\"\\\\\\n\"} 1\n# HELP h It is.\n# TYPE h histogram\n\
                h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1.5\nh_count 2\n";
    Page::read(good).expect("it is as it should be");
    for (from, to) in [
        ("# HELP a_total It counts.\n", ""),
        ("# TYPE a_total counter\n", ""),
        ("a_total counter", "a_total count"),
        ("a_total", "a"),
        ("a_total{x=\"\\\"\\\\\\n\"} 1\n", "a_total{x=\"\n\"} 1\n"),
        ("a_total{x=\"\\\"\\\\\\n\"} 1\n", "a_total{x=\"\"\"} 1\n"),
        ("a_total{x=\"\\\"\\\\\\n\"} 1\n", "a_total{x=\"\\t\"} 1\n"),
        ("a_total{x=\"\\\"\\\\\\n\"} 1\n", "a_total 1\na_total 1\n"),
        ("a_total{x=\"\\\"\\\\\\n\"} 1\n", "a_total x\n"),
        ("a_total{x=\"\\\"\\\\\\n\"} 1\n", "b_total 1\n"),
        ("h_bucket{le=\"1\"} 1\n", "h_bucket{le=\"1\"} 3\n"),
        ("h_bucket{le=\"+Inf\"} 2\n", ""),
        ("h_count 2", "h_count 3"),
        ("h_sum 1.5\n", ""),
        ("h_count 2\n", "h_count 2"),
        ("h_count 2\n", ""),
    ] {
        let broken = good.replacen(from, to, 1);
        assert_ne!(broken, good);
        assert!(Page::read(&broken).is_err(), "{broken}");
    }
}
