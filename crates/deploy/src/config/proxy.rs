//! The address of a proxy, with a password that nobody gets to see.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::schema::{Kind, Setting};
use crate::secret::Secret;

/// What [`ProxyAddress`] shows in the place of a password.
pub(super) const MASK: &str = "***";
/// What may be in an address beside letters and digits: it stands between quotation marks in files of apt, of curl and of systemd.
const HARMLESS: &str = "-._~%:@/[]!*+,;=&()";

/// Where a proxy is: `http://[USER:PASSWORD@]HOST[:PORT]`. The password is masked wherever it is shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct ProxyAddress(Secret);

impl ProxyAddress {
    /// The address as those need it who go there.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// User and password, and the rest before and after them.
    fn parts(&self) -> (&str, Option<&str>, &str) {
        let text = self.0.expose();
        let start = text.find("://").map_or(0, |place| place + 3);
        match text[start..].rfind('@') {
            Some(end) => (&text[..start], Some(&text[start..start + end]), &text[start + end..]),
            None => (&text[..start], None, &text[start..]),
        }
    }

    /// Whether it was copied from where it was masked.
    pub(super) fn is_masked(&self) -> bool {
        self.parts().1.and_then(|login| login.split_once(':')).is_some_and(|(_, password)| password == MASK)
    }
}

impl From<String> for ProxyAddress {
    fn from(text: String) -> Self {
        Self(Secret::new(text))
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, login, place) = self.parts();
        match login.map(|login| login.split_once(':')) {
            Some(Some((user, _))) => write!(formatter, "{scheme}{user}:{MASK}{place}"),
            Some(None) => write!(formatter, "{scheme}{}{place}", login.unwrap_or_default()),
            None => write!(formatter, "{scheme}{place}"),
        }
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for ProxyAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Setting for ProxyAddress {
    const KIND: Kind = Kind::Parsed("the address of a proxy such as http://proxy.example:3128", |text| {
        let address = text.trim_end_matches('/');
        let has_scheme = ["http://", "https://"].iter().any(|scheme| address.starts_with(scheme));
        let stranger = address.chars().find(|c| !c.is_ascii_alphanumeric() && !HARMLESS.contains(*c));
        match stranger {
            Some(stranger) => Err(format!("{stranger:?} cannot be in it; user and password are written with %XX")),
            None if !has_scheme && !address.contains("://") => Err("it begins with http:// or https://".to_owned()),
            None => crate::proxy::check(address).map(|()| address.to_owned()),
        }
    });
}

/// What is reached without the proxy: a name, an address, a range, or `*`.
pub(super) fn exception(text: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.:/*[]".contains(c);
    match !text.is_empty() && text.chars().all(legal) && (text == "*" || !text.contains('*')) {
        true => Ok(()),
        false => {
            Err(format!("{text:?} is neither a name such as .example.com, nor an address, nor a range, nor \"*\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Problem, load, render};

    fn problems(text: &str) -> String {
        let problems = match load(text) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_password_is_masked_wherever_the_configuration_is_shown() {
        let text = "proxy: {http: 'http://ada:hunter%202@proxy.example:3128/', https: 'http://bob@proxy.example', no_proxy: [.corp]}\n";
        let config = load(text).unwrap().config;
        let shown = format!("{} {config:?}", render(&config));
        assert!(shown.contains("http://ada:***@proxy.example:3128\n") && shown.contains("http://bob@proxy.example\n"));
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(config.proxy.http.unwrap().secret().expose(), "http://ada:hunter%202@proxy.example:3128");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let said = problems(
            "proxy:\n  http: 'http://ada:hunter$2@proxy.example'\n  https: socks5://ada:hunter2@proxy.example\n  no_proxy: ['a b', '*.example.com', 10.0.0.0/8]\n",
        );
        assert!(!said.contains("hunter"), "{said}");
        let others = [
            "proxy: {https: proxy.example:3128}\n",
            "proxy: {https: 'http://ada:***@proxy.example:3128'}\n",
            "proxy: {no_proxy: [.corp]}\n",
        ];
        insta::assert_snapshot!(said + "\n\n" + &others.map(problems).join("\n\n"), @r#"
        2:9: proxy.http: '$' cannot be in it; user and password are written with %XX
        3:10: proxy.https: SOCKS (socks5://) is not supported; an http:// or https:// proxy is
        4:14: proxy.no_proxy[0]: "a b" is neither a name such as .example.com, nor an address, nor a range, nor "*"
        4:21: proxy.no_proxy[1]: "*.example.com" is neither a name such as .example.com, nor an address, nor a range, nor "*"

        1:16: proxy.https: it begins with http:// or https://

        1:8: proxy: is for the machines: k0rdent's own pods, which download charts and providers, do not get it
        1:16: proxy.https: its password is ***, which is how `config show` masks one
        proxy.http: is not set: the machines go there without a proxy

        1:19: proxy.no_proxy: has no effect: there is neither proxy.http nor proxy.https
        "#);
    }
}
