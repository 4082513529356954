//! Finds the samples of output in a page of `docs/`: each is a block of code after
//! `<!-- sample: NAME -->`.

/// What a page has before a sample, the sample, and what follows.
#[must_use]
pub fn split<'a>(page: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let fence = "```\n";
    let mark = format!("<!-- sample: {name} -->\n{fence}");
    let start = page.find(&mark)? + mark.len();
    let len = page[start..].find(fence)?;
    let (before, rest) = page.split_at(start);
    let (kept, after) = rest.split_at(len);
    Some((before, kept, after))
}

/// The commands of a page that have output below them, and no mark above.
#[must_use]
pub fn unmarked(page: &str) -> Vec<&str> {
    let mut unmarked = Vec::new();
    let mut before = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block: Vec<_> = lines.by_ref().take_while(|it| *it != "```").collect();
            let is_sample = block.len() > 1 && block[0].starts_with("$ ");
            if is_sample && !before.starts_with("<!-- sample: ") {
                unmarked.push(block[0]);
            }
        }
        before = line;
    }
    unmarked
}
