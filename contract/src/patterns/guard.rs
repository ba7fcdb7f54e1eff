//! What is to happen for each rule, and whole values.

use super::check::{Verdict, judge};
use super::rules::{RULES, rule};
use super::stream::Stream;

/// What happens to a credential that a rule recognises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Nothing; it is not looked for.
    #[default]
    Off,
    /// It passes, and is reported.
    Log,
    /// It is overwritten by text of the same length.
    Mask,
    /// What it stands in does not pass.
    Block,
}

/// The rules of one server entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Guard {
    actions: [Action; RULES.len()],
    /// For each first character of a prefix: the rules that are on.
    starts: Box<[(u8, usize)]>,
}

/// What was found, without a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// One bit for each rule, in the order of [`RULES`].
    pub rules: u64,
    /// How many credentials were overwritten.
    pub masked: u64,
    /// How many passed.
    pub logged: u64,
    /// Whether there is one that must not pass.
    pub blocked: bool,
}

/// A whole value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// What was found.
    pub finding: Finding,
    /// The value without what is to be masked, of the same length; none where it is as it was.
    pub masked: Option<Vec<u8>>,
}

/// Where a credential stands in a text, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) rule: usize,
    pub(super) action: Action,
    /// It goes on beyond `end`: a key below its first line, or a token longer than is looked at.
    pub(super) goes_on: bool,
}

// === impl Action ===

impl Action {
    /// The name in configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Off => "off",
            Action::Log => "log",
            Action::Mask => "mask",
            Action::Block => "block",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Action> {
        [Action::Off, Action::Log, Action::Mask, Action::Block].into_iter().find(|action| action.as_str() == name)
    }
}

// === impl Guard ===

impl Guard {
    /// A guard that does this for every rule, but for those that are named.
    #[must_use]
    pub fn new(default: Action, named: &[(usize, Action)]) -> Guard {
        let mut actions = [default; RULES.len()];
        for (number, action) in named {
            if let Some(own) = actions.get_mut(*number) {
                *own = *action;
            }
        }
        let mut starts = Vec::new();
        for (number, rule) in RULES.iter().enumerate() {
            let first = |prefix: &&str| prefix.as_bytes().first().copied();
            for letter in rule.prefixes.iter().filter_map(first) {
                if actions.get(number).is_some_and(|action| *action != Action::Off)
                    && !starts.contains(&(letter, number))
                {
                    starts.push((letter, number));
                }
            }
        }
        Guard { actions, starts: starts.into() }
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.starts.is_empty()
    }

    /// The guard as one header value: `block`, then `mask`, then `log`, each with its rules; see [`Guard::parse`].
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for action in [Action::Block, Action::Mask, Action::Log] {
            let named = self.actions.iter().zip(&RULES).filter(|(own, _)| **own == action).map(|(_, rule)| rule.name);
            let names: Vec<&str> = named.collect();
            if !names.is_empty() {
                let separator = if text.is_empty() { "" } else { ";" };
                text += &format!("{separator}{}={}", action.as_str(), names.join(","));
            }
        }
        text
    }

    /// Reads what [`Guard::to_text`] wrote. None for a name that this version does not know: a guard that cannot be kept is
    /// no guard.
    #[must_use]
    pub fn parse(text: &str) -> Option<Guard> {
        let mut named = Vec::new();
        for group in text.split(';').filter(|group| !group.is_empty()) {
            let (action, names) = group.split_once('=')?;
            let action = Action::parse(action)?;
            for name in names.split(',') {
                named.push((rule(name)?, action));
            }
        }
        Some(Guard::new(Action::Off, &named))
    }

    /// Looks through a whole value.
    #[must_use]
    pub fn inspect(&self, value: &[u8]) -> Inspected {
        let mut stream = self.stream();
        let mut out = Vec::new();
        let passed = stream.push(self, value, true, &mut out);
        Inspected { masked: (passed.finding.masked > 0).then_some(out), finding: passed.finding }
    }

    /// A stream for one body.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::default()
    }

    /// The first credential at or after `from`, or the place from which on more text is needed. `before` is what stands
    /// before the text.
    pub(super) fn find(&self, before: &[u8], text: &[u8], from: usize, end: bool) -> Result<Option<Place>, usize> {
        for (start, byte) in text.iter().enumerate().skip(from) {
            if !self.starts.iter().any(|(letter, _)| letter == byte) || !is_boundary(before, text, start) {
                continue;
            }
            let rest = text.get(start..).unwrap_or_default();
            let mut open = false;
            for (_, number) in self.starts.iter().filter(|(letter, _)| letter == byte) {
                let Some(rule) = RULES.get(*number) else { continue };
                let place = |length, goes_on| Place {
                    start,
                    end: start + length,
                    rule: *number,
                    action: self.actions.get(*number).copied().unwrap_or_default(),
                    goes_on,
                };
                match judge(rule, rest, end) {
                    Verdict::No => {}
                    Verdict::Open => open = true,
                    Verdict::Is(length) => {
                        return Ok(Some(place(length, matches!(rule.shape, super::check::Shape::Pem))));
                    }
                    Verdict::Begins(length) => return Ok(Some(place(length, true))),
                }
            }
            if open {
                return Err(start);
            }
        }
        Ok(None)
    }
}

impl Finding {
    /// The names of the rules.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let rules = self.rules;
        RULES.iter().enumerate().filter(move |(number, _)| rules & (1 << number) != 0).map(|(_, rule)| rule.name)
    }

    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: Finding) {
        self.rules |= other.rules;
        self.masked += other.masked;
        self.logged += other.logged;
        self.blocked |= other.blocked;
    }

    pub(super) fn note(&mut self, place: &Place) {
        self.rules |= 1 << place.rule;
        match place.action {
            Action::Off => {}
            Action::Log => self.logged += 1,
            Action::Mask => self.masked += 1,
            Action::Block => self.blocked = true,
        }
    }
}

/// Whether a word begins here: what stands before is no part of one, or is an escape (`\n`, `\u003d`, `%3D`).
fn is_boundary(before: &[u8], text: &[u8], start: usize) -> bool {
    let back = |distance: usize| match start.checked_sub(distance) {
        Some(at) => text.get(at).copied(),
        None => before.len().checked_sub(distance - start).and_then(|at| before.get(at).copied()),
    };
    let Some(last) = back(1) else { return true };
    if !(last.is_ascii_alphanumeric() || matches!(last, b'_' | b'-' | b'+')) {
        return true;
    }
    let is_hex = |distance| back(distance).is_some_and(|byte: u8| byte.is_ascii_hexdigit());
    (matches!(last, b'n' | b'r' | b't' | b'b' | b'f') && back(2) == Some(b'\\'))
        || (is_hex(1) && is_hex(2) && back(3) == Some(b'%'))
        || ((1..=4).all(is_hex) && back(5) == Some(b'u') && back(6) == Some(b'\\'))
        || last == b'-' && text.get(start) == Some(&b'-')
}
