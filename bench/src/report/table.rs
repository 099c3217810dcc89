//! Tables in Markdown.

use std::fmt::Write as _;

/// A table whose columns are to the right but for the first ones.
pub(crate) struct Table {
    text: String,
    columns: usize,
}

impl Table {
    /// With these titles, of which so many stand over text.
    pub(crate) fn new(titles: &[&str], of_text: usize) -> Self {
        let mut table = Self { text: String::new(), columns: titles.len() };
        table.row(titles.iter().map(|&title| title.to_owned()));
        let lines = (0..titles.len()).map(|n| if n < of_text { "---" } else { "---:" });
        table.row(lines.map(str::to_owned));
        table
    }

    /// Adds a row; cells at its end may be left out.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        assert!(cells.len() <= self.columns, "{cells:?}");
        cells.resize(self.columns, String::new());
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    /// The text.
    pub(crate) fn end(self) -> String {
        self.text + "\n"
    }
}

/// `12,345`, rounded.
pub(crate) fn whole(n: f64) -> String {
    let digits = format!("{:.0}", n.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if n < -0.5 { format!("-{text}") } else { text }
}

/// `+12,345` or `-12,345` or `0`.
pub(crate) fn more(n: f64) -> String {
    match whole(n) {
        text if n >= 0.5 => format!("+{text}"),
        text => text,
    }
}

/// A number of calls: few are whole, where something happens at times.
pub(crate) fn calls(n: f64) -> String {
    let text = format!("{n:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(whole(0.4), "0");
        assert_eq!(whole(999.6), "1,000");
        assert_eq!(whole(1_234_567.0), "1,234,567");
        assert_eq!(more(12_345.0), "+12,345");
        assert_eq!(more(-12.0), "-12");
        assert_eq!(more(-0.2), "0");
        assert_eq!(calls(2.0), "2");
        assert_eq!(calls(10.0), "10");
        assert_eq!(calls(1.505), "1.5");
    }

    #[test]
    fn tables() {
        let mut table = Table::new(&["a", "b"], 1);
        table.row(["x".to_owned(), "1".to_owned()]);
        table.row(["y".to_owned()]);
        assert_eq!(table.end(), "| a | b |\n| --- | ---: |\n| x | 1 |\n| y |  |\n\n");
    }
}
