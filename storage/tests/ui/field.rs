//! A field that is no record.
extern crate tidemill_storage as tidemill;

#[derive(tidemill::Record)]
struct Counted {
    name: String,
    count: usize,
}

fn main() {}
