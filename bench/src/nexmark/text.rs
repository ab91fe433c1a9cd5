//! All text that events carry, made once: events borrow from here, so a string costs an offset.
//!
//! Letters and words are slices at random places of fixed random blocks; channels, names and addresses
//! are tables. Everything is ASCII, so every offset is a valid place to cut.

use std::{hint::select_unpredictable, sync::LazyLock};

use super::random::{Draw, Prices, below, high, low};

const CHANNELS: usize = 10_000;
/// The channels that half of all bids come from; they follow the numbered ones in the table.
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// Of ten numbered channels, nine have their number in their url.
const URL_WITH_ID_OF_TEN: u32 = 9;
/// A channel and its url lie side by side in a slot of this size, so that their place needs no table.
const CHANNEL_SLOT: usize = 96;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] =
    ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
/// The cities that people live in.
pub(super) const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
/// The states that people live in, drawn apart from the cities.
pub(super) const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

const EMAILS: u32 = 4096;
/// Places at which a slice of a random block may begin: a power of two, and the block in L2.
const PLACES: usize = 1 << 15;
/// The longest slice of a block: an auction's padding.
const SLICE_MAX: usize = 600;
const CARD_GROUPS: u32 = 4096;
const CARD_LEN: usize = 4 * 5 - 1;

/// The tables; one for the process.
pub(super) struct Tables {
    pub(super) prices: Prices,
    letters: String,
    words: String,
    card_digits: String,
    channels: String,
    /// Lengths of a channel's name and url.
    channel_lens: Vec<[u8; 2]>,
    names: Vec<String>,
    emails: Vec<String>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(Tables::new);

impl Tables {
    pub(super) fn get() -> &'static Self {
        &TABLES
    }

    fn new() -> Self {
        let (channels, channel_lens) = channels();
        let names = FIRST_NAMES.iter().flat_map(|first| LAST_NAMES.map(|last| format!("{first} {last}")));
        Self {
            prices: Prices::new(),
            letters: block(1, letter),
            // One blank in thirteen, as in the public generator.
            words: block(2, |random| if low(random).is_multiple_of(13) { ' ' } else { letter(random) }),
            card_digits: (0..u64::from(CARD_GROUPS) + 4)
                .map(|i| format!("{:04} ", below(high(draw(3, i)), 10_000)))
                .collect(),
            channels,
            channel_lens,
            names: names.collect(),
            emails: (0..u64::from(EMAILS)).map(email).collect(),
        }
    }

    /// `len` letters.
    #[inline]
    pub(super) fn letters(&'static self, random: u32, len: usize) -> &'static str {
        let start = random as usize % PLACES;
        &self.letters[start..start + len]
    }

    /// At most `len` letters and blanks, with no blank at either end.
    #[inline]
    pub(super) fn words(&'static self, random: u32, len: usize) -> &'static str {
        let start = random as usize % PLACES;
        self.words[start..start + len].trim_ascii()
    }

    /// Four groups of four digits.
    #[inline]
    pub(super) fn credit_card(&'static self, random: u32) -> &'static str {
        let start = (random % CARD_GROUPS) as usize * 5;
        &self.card_digits[start..start + CARD_LEN]
    }

    /// A first and a last name.
    #[inline]
    pub(super) fn name(&'static self, random: u32) -> &'static str {
        &self.names[below(random, self.names.len() as u64) as usize]
    }

    /// An email address.
    #[inline]
    pub(super) fn email(&'static self, random: u32) -> &'static str {
        &self.emails[(random % EMAILS) as usize]
    }

    /// Where a bid comes from: with `hot` one of the four known channels, else one of ten thousand.
    #[inline]
    pub(super) fn channel(&'static self, hot: bool, which_hot: u32, random: u32) -> Channel {
        let known = CHANNELS + which_hot as usize % HOT_CHANNELS.len();
        Channel { slot: select_unpredictable(hot, known, below(random, CHANNELS as u64) as usize) }
    }

    /// The channel's name.
    #[inline]
    pub(super) fn channel_name(&'static self, channel: Channel) -> &'static str {
        let start = channel.slot * CHANNEL_SLOT;
        &self.channels[start..start + usize::from(self.channel_lens[channel.slot][0])]
    }

    /// The channel's url.
    #[inline]
    pub(super) fn channel_url(&'static self, channel: Channel) -> &'static str {
        let [name, url] = self.channel_lens[channel.slot].map(usize::from);
        let start = channel.slot * CHANNEL_SLOT + name;
        &self.channels[start..start + url]
    }
}

/// One entry of the channel table.
#[derive(Clone, Copy)]
pub(super) struct Channel {
    slot: usize,
}

/// A random word for table `table`; the tables are the same for every stream.
fn draw(table: u64, i: u64) -> u64 {
    Draw::new(table << 48, i).word(0)
}

fn letter(random: u64) -> char {
    char::from(b'a' + below(high(random), 26) as u8)
}

fn block(table: u64, character: impl Fn(u64) -> char) -> String {
    (0..(PLACES + SLICE_MAX) as u64).map(|i| character(draw(table, i))).collect()
}

/// `len` letters of their own for entry `i` of `table`.
fn word(table: u64, i: u64, len: u64) -> String {
    (0..len).map(|j| letter(draw(table, i * 64 + j))).collect()
}

fn email(i: u64) -> String {
    let lens = draw(4, i);
    format!("{}@{}.com", word(5, i, 3 + below(high(lens), 5)), word(6, i, 3 + below(low(lens), 3)))
}

fn channels() -> (String, Vec<[u8; 2]>) {
    let mut text = String::with_capacity((CHANNELS + HOT_CHANNELS.len()) * CHANNEL_SLOT);
    let mut lens = Vec::with_capacity(CHANNELS + HOT_CHANNELS.len());
    for slot in 0..CHANNELS + HOT_CHANNELS.len() {
        let part = |number: u64| word(7 + number, slot as u64, 5);
        let mut url = format!("https://www.nexmark.com/{}/{}/{}/item.htm?query=1", part(0), part(1), part(2));
        let name = match HOT_CHANNELS.get(slot.wrapping_sub(CHANNELS)) {
            Some(known) => (*known).to_owned(),
            None => {
                if below(high(draw(10, slot as u64)), 10) < u64::from(URL_WITH_ID_OF_TEN) {
                    // The public generator's number for channel K, which looks nothing like K.
                    let id = (slot as u32).reverse_bits().cast_signed().unsigned_abs();
                    url += &format!("&channel_id={id}");
                }
                format!("channel-{slot}")
            }
        };
        assert!(name.len() + url.len() <= CHANNEL_SLOT, "a slot holds every name and url");
        lens.push([name.len() as u8, url.len() as u8]);
        text += &name;
        text += &url;
        text.extend(std::iter::repeat_n(' ', CHANNEL_SLOT - name.len() - url.len()));
    }
    (text, lens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_look_as_the_benchmark_says() {
        let tables = Tables::get();
        let urls: Vec<_> = (0..CHANNELS).map(|slot| tables.channel_url(Channel { slot })).collect();
        let with_id = urls.iter().filter(|url| url.contains("&channel_id=")).count();
        assert!((8_800..9_200).contains(&with_id), "{with_id} urls carry their channel");
        for url in &urls {
            let parts: Vec<_> = url.split('/').collect();
            assert_eq!((parts[0], parts[2], parts.len()), ("https:", "www.nexmark.com", 7));
            assert!(parts[3..6].iter().all(|part| part.len() == 5));
            assert!(parts[6].starts_with("item.htm?query=1"));
        }
        assert_eq!(tables.channel_name(Channel { slot: 17 }), "channel-17");
        assert_eq!(tables.channel_name(tables.channel(true, 1, 0)), "Facebook");
        assert!(!tables.channel_url(tables.channel(true, 1, 0)).contains("channel_id"));
    }

    #[test]
    fn cards_are_four_groups_of_digits() {
        for random in [0, 1, CARD_GROUPS - 1, u32::MAX] {
            let card = Tables::get().credit_card(random);
            assert_eq!(card.len(), CARD_LEN);
            assert!(
                card.split(' ').all(|group| group.len() == 4 && group.bytes().all(|b| b.is_ascii_digit()))
            );
        }
    }
}
