//! Where Object Storage is.

use reqwest::Url;

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

/// The address of a service in a region: `https://objectstorage.eu-stockholm-1.oraclecloud.com`.
///
/// # Errors
/// A sentence about a name that is no region's.
pub fn of_region(service: &str, region: &str) -> Result<Url, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || !region.bytes().all(plain) {
        return Err(format!("`{region}` is no region such as eu-stockholm-1"));
    }
    let realm =
        REALMS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or(COMMERCIAL, |(_, domain)| domain);
    Url::parse(&format!("https://{service}.{region}.{realm}"))
        .map_err(|error| format!("`{region}` is no region: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_an_address_in_its_realm() {
        let address = |region| of_region("objectstorage", region).unwrap().to_string();
        assert_eq!(address("eu-stockholm-1"), "https://objectstorage.eu-stockholm-1.oraclecloud.com/");
        assert_eq!(address("us-gov-ashburn-1"), "https://objectstorage.us-gov-ashburn-1.oraclegovcloud.com/");
        for wrong in ["", "eu stockholm", "x/../y", "EU", "a.b", "a@b"] {
            assert!(of_region("objectstorage", wrong).is_err(), "{wrong}");
        }
    }
}
