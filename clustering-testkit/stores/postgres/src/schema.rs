/// The SQL that creates the tables and functions in the schema `clustering`.
const SQL: &str = include_str!("schema.sql");

/// Longest name of a schema. PostgreSQL truncates longer ones.
const LONGEST: usize = 63;

/// Returns the SQL that creates the tables and functions in this schema.
pub(crate) fn sql(schema: &str) -> String {
    SQL.replace("\"clustering\"", &format!("\"{schema}\"")).replace("'clustering'", &format!("'{schema}'"))
}

/// Returns true for names that need no escaping in SQL.
pub(crate) fn is_valid(schema: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = schema.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    begins && schema.len() <= LONGEST && schema.bytes().all(is_plain) && !schema.starts_with("pg_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_need_escaping_are_refused() {
        for name in ["clustering", "_a", "team_2"] {
            assert!(is_valid(name), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["", "2a", "a b", "a\"b", "a'b", "A", "ä", "pg_x", &long] {
            assert!(!is_valid(name), "{name}");
        }
    }

    #[test]
    fn the_schema_and_the_channel_are_replaced_everywhere() {
        let sql = sql("other");
        assert!(!sql.contains("clustering\"") && !sql.contains("'clustering'"), "{sql}");
        assert!(sql.contains("CREATE TABLE IF NOT EXISTS \"other\".counter"));
        assert!(sql.contains("pg_notify('other', "));
    }
}
