//! Where the services are.

use reqwest::Url;

use crate::text::ParseError;

/// Regions outside the commercial realm, by how their names begin, and the domain of their realm.
///
/// Source: the service's list of realms and regions (docs.oracle.com, "Regions and Availability Domains").
const REALMS: [(&str, &str); 6] = [
    ("us-gov-", "oraclegovcloud.com"),
    ("us-langley-", "oraclegovcloud.com"),
    ("us-luke-", "oraclegovcloud.com"),
    ("uk-gov-", "oraclegovcloud.uk"),
    ("ap-chiyoda-", "oraclecloud8.com"),
    ("ap-ibaraki-", "oraclecloud8.com"),
];
const COMMERCIAL: &str = "oraclecloud.com";

/// A region and the domain of its realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// `eu-stockholm-1`.
    pub name: String,
    /// `oraclecloud.com`.
    pub domain: String,
}

impl Region {
    /// A region by its name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let realm = REALMS.iter().find(|(prefix, _)| name.starts_with(prefix));
        let domain = realm.map_or(COMMERCIAL, |(_, domain)| domain).to_owned();
        Self { name: name.to_owned(), domain }
    }

    /// The address of a service: `objectstorage`, `auth`, or `secrets.vaults`, which lies below `oci`.
    ///
    /// # Errors
    /// The name is not a valid region.
    pub fn address(&self, service: &str) -> Result<Url, ParseError> {
        let Self { name, domain } = self;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_domain = !domain.is_empty() && domain.bytes().all(|byte| plain(byte) || byte == b'.');
        if name.is_empty() || !name.bytes().all(plain) || !is_domain {
            return Err(format!("`{name}` is not a valid region such as eu-stockholm-1").into());
        }
        let below = if service == "secrets.vaults" { "oci." } else { "" };
        Url::parse(&format!("https://{service}.{name}.{below}{domain}"))
            .map_err(|error| format!("`{name}` is not a valid region: {error}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_an_address_in_its_region_and_realm() {
        let address = |service, region| Region::named(region).address(service).unwrap().to_string();
        assert_eq!(
            address("objectstorage", "eu-stockholm-1"),
            "https://objectstorage.eu-stockholm-1.oraclecloud.com/"
        );
        assert_eq!(
            address("objectstorage", "us-gov-ashburn-1"),
            "https://objectstorage.us-gov-ashburn-1.oraclegovcloud.com/"
        );
        assert_eq!(
            address("secrets.vaults", "eu-stockholm-1"),
            "https://secrets.vaults.eu-stockholm-1.oci.oraclecloud.com/"
        );
        for wrong in ["", "eu stockholm", "x/../y", "EU", "a.b", "a@b"] {
            assert!(Region::named(wrong).address("objectstorage").is_err(), "{wrong}");
        }
    }
}
