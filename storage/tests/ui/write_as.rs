//! A borrowed struct that is not as its record.
extern crate tidemill_storage as tidemill;

#[derive(tidemill::Record)]
struct Bid {
    url: String,
    price: u64,
}

#[derive(tidemill::WriteAs)]
#[write_as(Bid)]
struct BidRef<'a> {
    url: &'a str,
}

#[derive(tidemill::WriteAs)]
struct Whose<'a> {
    url: &'a str,
}

#[derive(tidemill::WriteAs)]
#[write_as(Bid)]
struct Disordered<'a> {
    price: u64,
    url: &'a str,
}

fn main() {}
