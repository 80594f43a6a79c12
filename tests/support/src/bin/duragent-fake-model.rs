//! A model server for scripts and for machines that are emulated: Ollama's API on loopback, and answers as the messages themselves ask
//! for them (`told` in the library). It says its URL on a line of standard output and ends with its standard input.

use duragent_testkit::Fake;
use std::io::Write;

fn main() -> std::io::Result<()> {
    let fake = Fake::ollama().as_told();
    let mut out = std::io::stdout();
    writeln!(out, "{}", fake.url())?;
    out.flush()?;
    // Whoever started it holds the other end, and lets go of it however it ends.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    for refusal in fake.refused() {
        eprintln!("refused: {refusal}");
    }
    Ok(())
}
