//! What the benchmark says about the stream, checked on the stream.

use std::collections::BTreeMap;

use super::*;
use crate::nexmark::{
    model::Event,
    view::{AuctionRef, BidRef, PersonRef},
};

const EVENTS: u64 = 200_000;

fn all(events: u64) -> Generator<{ fields::ALL }> {
    Generator::new(Config::default(), Split::whole(0..events))
}

fn bids() -> impl Iterator<Item = BidRef<'static>> {
    all(EVENTS).filter_map(|event| match event {
        EventRef::Bid(bid) => Some(bid),
        _ => None,
    })
}

fn auctions() -> impl Iterator<Item = AuctionRef<'static>> {
    all(EVENTS).filter_map(|event| match event {
        EventRef::Auction(auction) => Some(auction),
        _ => None,
    })
}

fn persons() -> impl Iterator<Item = PersonRef<'static>> {
    all(EVENTS).filter_map(|event| match event {
        EventRef::Person(person) => Some(person),
        _ => None,
    })
}

fn share(matching: usize, of: usize) -> f64 {
    matching as f64 / of as f64
}

#[test]
fn any_split_gives_the_same_multiset() {
    let sorted = |parts: Vec<Split>| {
        let mut events: Vec<Event> = parts
            .into_iter()
            .flat_map(|split| Generator::<{ fields::ALL }>::new(Config::default(), split))
            .map(|event| event.to_owned())
            .collect();
        events.sort_unstable();
        events
    };
    let whole = sorted(vec![Split::whole(0..20_000)]);
    assert_eq!(whole.len(), 20_000);
    assert_eq!(
        whole,
        sorted(vec![Split::whole(0..7), Split::whole(7..12_345), Split::whole(12_345..20_000)])
    );
    for of in [2, 3, 8] {
        assert_eq!(whole, sorted((0..of).map(|i| Split::interleaved(0..20_000, i, of)).collect()));
    }
}

#[test]
fn kinds_come_in_the_stated_proportion_and_order() {
    let kinds: String = all(100)
        .map(|event| match event {
            EventRef::Person(_) => 'p',
            EventRef::Auction(_) => 'a',
            EventRef::Bid(_) => 'b',
        })
        .collect();
    let epoch = format!("paaa{}", "b".repeat(46));
    assert_eq!(kinds, epoch.repeat(2));
}

#[test]
fn unwanted_kinds_are_jumped_over() {
    let new = |split| Generator::<{ fields::Q8 }>::new(Config::default(), split);
    let expected: Vec<_> = (0..500).filter(|&n| kind_of(n) != Kind::Bid).map(|n| n / 100).collect();
    let times: Vec<_> =
        new(Split::whole(0..500)).map(|e| e.date_time() as u64 - Config::BASE_MS as u64).collect();
    assert_eq!(times, expected);
    let bids = Generator::<{ fields::Q2 }>::new(Config::default(), Split::interleaved(0..5_000, 1, 2));
    assert_eq!(bids.count(), 2 * 920);
}

#[test]
fn ids_and_times_count_from_their_bases() {
    assert!(persons().map(|person| person.id).eq(1000..1000 + EVENTS as i64 / 50));
    assert!(auctions().map(|auction| auction.id).eq(1000..1000 + EVENTS as i64 / 50 * 3));
    for (n, event) in (0..).zip(all(1_000)) {
        assert_eq!(event.date_time(), Config::BASE_MS + n / 100);
    }
}

#[test]
fn bids_go_to_the_hot_auction_and_come_from_the_hot_bidder() {
    let events = Events::<{ fields::BID }>::new(Config::default());
    let (mut hot_auctions, mut hot_bidders, mut count) = (0, 0, 0);
    for n in (50_000..EVENTS).filter(|&n| kind_of(n) == Kind::Bid) {
        let bid = events.bid(n);
        let (newest_auction, newest_person) = ((n / 50 * 3 + 2) as i64, (n / 50) as i64);
        let (auction, bidder) = (bid.auction - 1000, bid.bidder - 1000);
        assert!((newest_auction - 100..=newest_auction + 10).contains(&auction));
        let hot_bidder = newest_person / 100 * 100 + 1;
        assert!((newest_person - 999..=newest_person + 10).contains(&bidder) || bidder == hot_bidder);
        hot_auctions += usize::from(auction == newest_auction / 100 * 100);
        hot_bidders += usize::from(bidder == hot_bidder);
        count += 1;
    }
    assert!((share(hot_auctions, count) - (0.5 + 0.5 / 111.0)).abs() < 0.01);
    assert!((share(hot_bidders, count) - 0.75).abs() < 0.01);
}

#[test]
fn auctions_follow_their_skew_and_expire_in_time() {
    let (mut hot, mut categories, count) = (0, BTreeMap::new(), auctions().count());
    for auction in auctions() {
        let newest_person = (auction.id - 1000) / 3;
        hot += usize::from(auction.seller == 1000 + newest_person / 100 * 100);
        *categories.entry(auction.category).or_insert(0) += 1;
        // A hundred auctions take 1,666 events, 16.66 ms.
        assert!((1..=1 + 2 * 17).contains(&(auction.expires - auction.date_time)));
        assert!(auction.reserve > auction.initial_bid && auction.initial_bid >= 100);
        assert!(auction.item_name.len() <= 20 && auction.description.len() <= 100);
    }
    assert!((share(hot, count) - 0.75).abs() < 0.01);
    assert!(categories.keys().copied().eq(10..15));
    assert!(categories.values().all(|&n| (share(n, count) - 0.2).abs() < 0.02));
}

#[test]
fn prices_are_even_on_a_logarithmic_scale() {
    let mut decades = [0; 6];
    for bid in bids() {
        assert!((100..=100_000_000).contains(&bid.price));
        decades[((bid.price as f64 / 100.0).log10() as usize).min(5)] += 1;
    }
    let count = decades.iter().sum();
    assert!(decades.iter().all(|&n| (share(n, count) - 1.0 / 6.0).abs() < 0.01), "{decades:?}");
}

#[test]
fn half_of_the_bids_come_from_known_channels() {
    let known = bids().filter(|bid| !bid.channel.starts_with("channel-")).count();
    assert!((share(known, bids().count()) - 0.5).abs() < 0.01);
    let mut urls = BTreeMap::new();
    for bid in bids() {
        assert_eq!(*urls.entry(bid.channel).or_insert(bid.url), bid.url, "a channel has one url");
    }
    assert!(urls.len() > 9_900);
}

#[test]
fn events_have_their_mean_sizes() {
    let mean = |sizes: Vec<usize>| sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    let person = mean(persons().map(|p| 16 + p.texts().map(str::len).iter().sum::<usize>()).collect());
    let auction = mean(auctions().map(|a| 56 + a.texts().map(str::len).iter().sum::<usize>()).collect());
    let bid = mean(bids().map(|b| 32 + b.extra.len()).collect());
    assert!((person - 200.0).abs() < 2.0, "{person}");
    assert!((auction - 500.0).abs() < 3.0, "{auction}");
    assert!((bid - 100.0).abs() < 1.0, "{bid}");
    assert!(bids().all(|b| (54..=82).contains(&b.extra.len())));
}

#[test]
fn a_generator_continues_where_it_was_left() {
    let mut first = all(10_000);
    let _ = first.by_ref().take(4_321).count();
    let mut second = all(10_000);
    second.seek(first.position());
    assert!(first.eq(second));
}
