//! Glob matching by simulating an automaton: time in proportion to pattern times text, memory to the pattern. Nothing
//! backtracks, so no pattern and no text make it explode.

use alloc::vec::Vec;

/// What wildcards mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `*` stands for anything.
    Text,
    /// As `Text`, but in a word of the pattern that has a `/` before it `*` and `?` stop at white space: such a word is a path,
    /// and more of them are not what its author saw.
    Command,
    /// `*` and `?` stop at `/`; `**` does not; `**/` stands for any number of whole directories, also none.
    Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    /// One character.
    One(Stop),
    /// Any number of characters.
    Many(Stop),
    /// `**/` between directories: may be passed over here. Always followed by `InDirectories`.
    Directories,
    /// Inside a directory name of `**/`: left by a `/` only.
    InDirectories,
}

/// What a wildcard does not stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Nothing,
    Slash,
    Space,
}

impl Stop {
    fn passes(self, c: char) -> bool {
        match self {
            Self::Nothing => true,
            Self::Slash => c != '/',
            Self::Space => !c.is_whitespace(),
        }
    }
}

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Glob(Vec<Token>);

impl Glob {
    pub(super) fn new(pattern: &str, style: Style) -> Self {
        let path = style == Style::Path;
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        let mut part_start = true;
        let mut stop = if path { Stop::Slash } else { Stop::Nothing };
        while let Some(c) = chars.next() {
            if style == Style::Command {
                match c {
                    '/' => stop = Stop::Space,
                    c if c.is_whitespace() => stop = Stop::Nothing,
                    _ => {}
                }
            }
            let at_start = core::mem::replace(&mut part_start, c == '/');
            match c {
                '\\' => match chars.next_if(|c| matches!(c, '*' | '?' | '\\')) {
                    Some(literal) => tokens.push(Token::Char(literal)),
                    None => tokens.push(Token::Char('\\')),
                },
                '?' => tokens.push(Token::One(stop)),
                '*' if path && chars.next_if_eq(&'*').is_some() => {
                    if at_start && chars.next_if_eq(&'/').is_some() {
                        tokens.extend([Token::Directories, Token::InDirectories]);
                        part_start = true;
                    } else {
                        tokens.push(Token::Many(Stop::Nothing));
                    }
                }
                '*' => tokens.push(Token::Many(stop)),
                c => tokens.push(Token::Char(c)),
            }
        }
        Self(tokens)
    }

    /// True if it matches more than one text.
    pub(super) fn has_wildcard(&self) -> bool {
        self.0.iter().any(|token| !matches!(token, Token::Char(_)))
    }

    /// True if it begins with a wildcard for anything.
    pub(super) fn starts_anywhere(&self) -> bool {
        self.0.first() == Some(&Token::Many(Stop::Nothing))
    }

    /// True if it matches the whole of `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        // Most patterns fail here, before anything is allocated.
        if let Some(Token::Char(first)) = self.0.first()
            && !text.starts_with(*first)
        {
            return false;
        }
        let (mut now, mut next) = (States::new(self.0.len()), States::new(self.0.len()));
        self.enter(&mut now, 0);
        for c in text.chars() {
            for &state in &now.list {
                match self.0.get(state) {
                    Some(Token::Char(literal)) if *literal == c => self.enter(&mut next, state + 1),
                    Some(Token::One(stop)) if stop.passes(c) => self.enter(&mut next, state + 1),
                    Some(Token::Many(stop)) if stop.passes(c) => self.enter(&mut next, state),
                    Some(Token::Directories) if c == '/' => self.enter(&mut next, state),
                    Some(Token::Directories) => self.enter(&mut next, state + 1),
                    Some(Token::InDirectories) if c == '/' => self.enter(&mut next, state.saturating_sub(1)),
                    Some(Token::InDirectories) => self.enter(&mut next, state),
                    _ => {}
                }
            }
            core::mem::swap(&mut now, &mut next);
            next.clear();
            if now.list.is_empty() {
                return false;
            }
        }
        now.list.contains(&self.0.len())
    }

    /// Adds a state and those that are reached from it without reading anything.
    fn enter(&self, states: &mut States, mut state: usize) {
        while states.add(state) {
            match self.0.get(state) {
                Some(Token::Many(_)) => state += 1,
                Some(Token::Directories) => state += 2,
                _ => return,
            }
        }
    }
}

/// A set of states that is walked in the order they came in.
struct States {
    list: Vec<usize>,
    present: Vec<bool>,
}

impl States {
    fn new(last: usize) -> Self {
        Self { list: Vec::new(), present: alloc::vec![false; last + 1] }
    }

    /// False if it was there.
    fn add(&mut self, state: usize) -> bool {
        match self.present.get_mut(state) {
            Some(present) if !*present => {
                *present = true;
                self.list.push(state);
                true
            }
            _ => false,
        }
    }

    fn clear(&mut self) {
        for state in self.list.drain(..) {
            if let Some(present) = self.present.get_mut(state) {
                *present = false;
            }
        }
    }
}
