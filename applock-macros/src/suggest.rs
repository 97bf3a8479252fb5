//! The nearest name to a misspelt one.

/// The candidate that a person most likely meant, if any is near enough.
pub(crate) fn nearest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = given.to_lowercase();
    // A third of the letters may be wrong: `ttll` and `onbusy` are caught, while
    // short words are not turned into unrelated ones.
    let allowed = (given.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out, replaced or swapped with their
/// neighbour to turn `a` into `b` ('optimal string alignment').
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (row, letter) in a.chars().enumerate() {
        let mut here = vec![row + 1];
        for (column, &other) in b.iter().enumerate() {
            let replace = above[column] + usize::from(letter != other);
            let mut best = replace.min(above[column + 1] + 1).min(here[column] + 1);
            if column > 0 && last == Some(other) && b[column - 1] == letter {
                best = best.min(before[column - 1] + 1);
            }
            here.push(best);
        }
        before = std::mem::replace(&mut above, here);
        last = Some(letter);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("tlt", "ttl"), 1);
        assert_eq!(distance("ttl", "ttl"), 0);
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let names = ["app", "name", "ttl", "on_busy"];
        assert_eq!(nearest("tll", names), Some("ttl"));
        assert_eq!(nearest("onbusy", names), Some("on_busy"));
        assert_eq!(nearest("App", names), Some("app"));
        assert_eq!(nearest("colour", names), None);
    }
}
