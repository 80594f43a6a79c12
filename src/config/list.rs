//! Lists of texts, item by item.

use super::read::{self, Problems, Section};
use super::yaml::{Kind, Node};

/// Most items of one list. 256: a mount or a rule of the kernel for each, and a person has to keep it in view.
pub const ITEMS_MAX: usize = 256;

/// What a list's item is worth: a warning or nothing; or an error.
pub type Judged = Result<Option<String>, String>;

/// Hands every item of a list to `judge`, as it is and as messages may show it.
pub fn each(section: &Section<'_>, key: &str, expected: &str, judge: &mut dyn FnMut(&str, &str) -> Judged) {
    let nodes = section.list(key);
    if nodes.len() > ITEMS_MAX {
        section.error(key, &format!("expected at most {ITEMS_MAX} items, found {}", nodes.len()));
        return;
    }
    items(section, key, nodes, expected, judge);
}

/// As [`each`], for items that were counted.
pub fn items(
    section: &Section<'_>,
    key: &str,
    nodes: &[Node],
    expected: &str,
    judge: &mut dyn FnMut(&str, &str) -> Judged,
) {
    let problems: &Problems<'_> = section.problems();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.kind != Kind::Broken) {
        let shown = read::found(node, problems);
        let judged = match read::text_of(node) {
            Some(text) => judge(text, &shown),
            None => Err(format!("expected {expected}, found {shown}")),
        };
        let said = |message| format!("{}[{index}]: {message}", section.child(key));
        match judged {
            Ok(None) => {}
            Ok(Some(warning)) => problems.warn(node.id, said(warning)),
            Err(error) => problems.error(node.id, said(error)),
        }
    }
}
