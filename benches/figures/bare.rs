//! The disk without us: a line appended to a file and synced, by as many threads to as many files as are asked for.

use crate::failure::{Failure, Result, at, doing, fail};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files that are appended to.
pub struct Bare {
    files: Vec<File>,
    line: Vec<u8>,
}

impl Bare {
    /// Makes `count` files in `folder`, which is made; `line` is what will be appended, a line feed included.
    pub fn new(folder: &Path, count: usize, line: &str) -> Result<Self> {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let mut files = Vec::new();
        for number in 0..count {
            let path = folder.join(format!("bare-{number}"));
            let file = OpenOptions::new().append(true).create_new(true).open(&path).map_err(at(&path))?;
            file.sync_all().map_err(at(&path))?;
            files.push(file);
        }
        File::open(folder).and_then(|f| f.sync_all()).map_err(at(folder))?;
        Ok(Self { files, line: line.as_bytes().to_vec() })
    }

    /// Appends and syncs for `time`, each of `threads` threads with its share of the files in turn; how many a second.
    pub fn rate(&mut self, threads: usize, time: Duration) -> Result<f64> {
        let (start, line) = (Instant::now(), &self.line);
        let share = self.files.len().div_ceil(threads);
        let work = |files: &mut [File]| -> std::io::Result<u64> {
            let mut count = 0;
            for at in (0..files.len()).cycle() {
                if start.elapsed() >= time {
                    break;
                }
                if let Some(file) = files.get_mut(at) {
                    append(file, line)?;
                    count += 1;
                }
            }
            Ok(count)
        };
        let counts = std::thread::scope(|scope| {
            let running: Vec<_> = self.files.chunks_mut(share).map(|files| scope.spawn(|| work(files))).collect();
            running.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let mut sum = 0;
        for count in counts {
            sum += count.map_err(|_| Failure("a thread panicked".into()))?.map_err(doing("appending"))?;
        }
        Ok(sum as f64 / start.elapsed().as_secs_f64())
    }

    /// Appends and syncs `count` times to the first file; each time in milliseconds.
    pub fn times(&mut self, count: usize) -> Result<Vec<f64>> {
        let Some(file) = self.files.first_mut() else { return fail("no file") };
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            append(file, &self.line).map_err(doing("appending"))?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    }
}

fn append(file: &mut File, line: &[u8]) -> std::io::Result<()> {
    file.write_all(line)?;
    file.sync_data()
}
