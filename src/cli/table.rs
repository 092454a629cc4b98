//! Pure: columns, and the few colours that mean something.

/// What a text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Look at it.
    Warn,
    /// Wrong.
    Bad,
    /// Of little interest.
    Dim,
    /// A heading.
    Bold,
}

impl Style {
    /// The text in this style, or as it is.
    pub fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            Style::Plain => return text.to_owned(),
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
            Style::Dim => "2",
            Style::Bold => "1",
        };
        if !color || text.is_empty() {
            return text.to_owned();
        }
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// One text of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A styled text; line breaks and control characters become spaces.
    pub fn new(text: &str, style: Style) -> Self {
        Cell { text: text.replace(char::is_control, " "), style }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::new(text, Style::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::new(&text, Style::Plain)
    }
}

/// Rows under a head, columns as wide as their widest text.
#[derive(Clone, Debug)]
pub struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub fn new(head: &'static [&'static str]) -> Self {
        Table { head, rows: Vec::new() }
    }

    /// Adds a row; what it has beyond the head is left out.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, a line for each row; the last column is not padded.
    pub fn render(&self, color: bool) -> String {
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .head
            .iter()
            .enumerate()
            .map(|(at, head)| {
                let cells = self.rows.iter().filter_map(|row| row.get(at));
                cells.map(|cell| width(&cell.text)).max().unwrap_or(0).max(width(head))
            })
            .collect();
        let mut text = String::new();
        let head: Vec<Cell> = self.head.iter().map(|h| Cell::new(h, Style::Bold)).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            let mut gap = 0;
            for (cell, wide) in row.iter().zip(&widths) {
                if cell.text.is_empty() {
                    gap += wide + 2;
                    continue;
                }
                line.push_str(&" ".repeat(gap));
                line.push_str(&cell.style.paint(&cell.text, color));
                gap = wide - width(&cell.text) + 2;
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters_and_lines_end_without_blanks() {
        let mut table = Table::new(&["NAME", "READY", "MESSAGE"]);
        table.row(vec!["größe".into(), Cell::new("True", Style::Good), "".into()]);
        table.row(vec!["a".into(), "".into(), "two\nlines".into()]);
        assert_eq!(
            table.render(false),
            "NAME   READY  MESSAGE\ngröße  True\na             two lines\n"
        );
        assert!(table.render(true).contains("\x1b[32mTrue\x1b[0m\n"));
        let bare = |text: &str| {
            ["\x1b[1m", "\x1b[32m", "\x1b[0m"].iter().fold(text.to_owned(), |t, c| t.replace(c, ""))
        };
        assert_eq!(bare(&table.render(true)), table.render(false), "colours take no room");
    }
}
