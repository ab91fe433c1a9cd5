//! Type parameters and lifetimes.
extern crate tidemill_storage as tidemill;

#[derive(tidemill::Record)]
struct Pair<T> {
    a: T,
    b: T,
}

#[derive(tidemill::Record)]
struct Borrowed<'a> {
    text: &'a str,
}

#[derive(tidemill::Record)]
enum Never {}

#[derive(tidemill::Record)]
#[record(versoin = 2)]
struct Misspelt;

fn main() {}
