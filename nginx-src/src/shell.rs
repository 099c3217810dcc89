//! As much of the shell's quoting as the files read and written here need.

/// `text` as one word of a shell command.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The words of `text`, without their quotes; none if a quote is left open.
///
/// Expansions (`$`, `*`, ...) are left as they are.
pub(crate) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            '\n' => {}
                            c @ ('$' | '`' | '"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_what_needs_it() {
        assert_eq!(quote("/usr/sbin/nginx"), "/usr/sbin/nginx");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("/a b"), "'/a b'");
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn words_are_what_the_shell_makes_of_them() {
        let text = r#"--a --b='c d' "--e=\"f\" \g" h\ i '' "#;
        assert_eq!(words(text).unwrap(), ["--a", "--b=c d", r#"--e="f" \g"#, "h i", ""]);
        assert_eq!(words("a \\\n b").unwrap(), ["a", "b"]);
        assert_eq!(words(" \n ").unwrap(), [""; 0]);
        assert_eq!(words("'open"), None);
        assert_eq!(words("\"open"), None);
        assert_eq!(words("open\\"), None);
    }

    #[test]
    fn quoted_words_come_back() {
        for text in ["", "a", "a b", "a'b", "'", "\"", "\\", "$x `y`", "line\nline", "é;&|<>*?~#!"]
        {
            assert_eq!(words(&quote(text)).unwrap(), [text], "{text:?}");
        }
    }
}
