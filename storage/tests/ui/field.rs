//! Fields that are no records.
extern crate tidemill_storage as tidemill;

#[derive(tidemill::Record)]
struct Counted {
    name: String,
    count: usize,
}

fn main() {}
