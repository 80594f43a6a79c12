#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| duragent_fuzz::targets::policy(data));
