//! A union.
extern crate tidemill_storage as tidemill;

#[derive(tidemill::Record)]
union Either {
    a: u32,
    b: f32,
}

fn main() {}
