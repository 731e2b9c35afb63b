//! Columns as kubo prints them: left-aligned, one blank between.

/// Lines of cells; every cell but the last of a line is padded to its column.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                let pad = widths.get(column).copied().unwrap_or(0).saturating_sub(cell.chars().count()) + 1;
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

/// A name as kubo shows it: characters that would move the cursor are escaped.
pub(crate) fn shown(name: &str) -> String {
    let escape =
        |c: char| -> String { if c.is_control() { c.escape_default().collect() } else { c.to_string() } };
    name.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_is_not_padded() {
        let rows =
            vec![vec!["Qm1".into(), "-".into(), "dir/".into()], vec!["Qm22".into(), "12".into(), "f".into()]];
        assert_eq!(columns(&rows), "Qm1  -  dir/\nQm22 12 f\n");
    }
}
