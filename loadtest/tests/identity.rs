//! Who signs: the instance this runs on, and a user whose key is in the Vault.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use collector::store::oci::instance::InstancePrincipal;
use collector::store::oci::key::{KeyError, PrivateKey};
use collector::store::oci::signature::Signer;
use collector::store::oci::vault::{SecretIds, VaultError, read_key};
use collector::store::{Key, Write};
use loadtest::oci::{Account, Faults, METADATA_BASE, ObjectStorage};
use support::{Impatient, Simulated};

async fn instance_of(simulated: &Simulated) -> Arc<dyn Signer> {
    let metadata = format!("{}{METADATA_BASE}", simulated.url).parse().unwrap();
    let federation = simulated.url.parse().unwrap();
    let found = InstancePrincipal::find(metadata, Some(federation), Arc::new(Impatient::default())).await;
    let (principal, region) = found.unwrap();
    assert_eq!((region.name.as_str(), region.domain.as_str()), ("eu-stockholm-1", "oraclecloud.com"));
    Arc::new(principal)
}

/// How many sessions were begun meanwhile.
fn sessions(service: &ObjectStorage) -> usize {
    service.served().iter().filter(|served| served.path == "/v1/x509").count()
}

#[tokio::test]
async fn an_instance_signs_with_one_session_until_that_is_about_to_expire() {
    let simulated = Simulated::start(Faults::none()).await;
    simulated.service.remember();
    let store = simulated.store_signed_by(instance_of(&simulated).await, "");
    let key = Key::new("a").unwrap();
    assert!(matches!(store.create(&key, b"1").await.unwrap(), Write::Done(_)));
    for _ in 0..5 {
        assert_eq!(store.get(&key).await.unwrap().unwrap().bytes, b"1");
    }
    assert_eq!(sessions(&simulated.service), 1);

    // A token that is no longer accepted is renewed at once.
    simulated.service.end_sessions();
    simulated.service.set_token_life(Duration::ZERO);
    let error = store.get(&key).await.unwrap_err();
    assert!(error.to_string().contains("unknown key"), "{error}");
    assert_eq!(sessions(&simulated.service), 1, "once, not for ever");
    simulated.service.set_token_life(Duration::from_mins(20));
    assert!(store.get(&key).await.unwrap().is_some());
    assert_eq!(sessions(&simulated.service), 1, "the token had expired");
}

#[tokio::test]
async fn without_a_metadata_service_nobody_is_an_instance() {
    let simulated = Simulated::start(Faults::none()).await;
    let find = |metadata: String| {
        InstancePrincipal::find(metadata.parse().unwrap(), None, Arc::new(Impatient::default()))
    };
    let error = find(format!("{}/nothing", simulated.url)).await.unwrap_err();
    assert!(error.to_string().contains("metadata service"), "{error}");
    let error = find("http://192.0.2.1/opc/v2".to_owned()).await.unwrap_err();
    assert!(error.to_string().contains("must be https"), "{error}");
}

fn secret_ids() -> SecretIds {
    let mut ids = ObjectStorage::secret_ids();
    let mut take = |name| ids.remove(name).unwrap();
    SecretIds {
        user: take("user"),
        tenancy: take("tenancy"),
        fingerprint: take("fingerprint"),
        private_key: take("private_key"),
    }
}

#[tokio::test]
async fn a_key_from_the_vault_signs_and_an_instance_may_fetch_it() {
    let simulated = Simulated::start(Faults::none()).await;
    let vault = || simulated.url.parse().unwrap();
    let instance = instance_of(&simulated).await;
    let key = read_key(&secret_ids(), vault(), instance, Arc::new(Impatient::default())).await.unwrap();
    let store = simulated.store_signed_by(Arc::new(key), "");
    assert!(matches!(store.create(&Key::new("a").unwrap(), b"1").await.unwrap(), Write::Done(_)));

    let instance = instance_of(&simulated).await;
    let wrong = SecretIds { fingerprint: "ocid1.vaultsecret.oc1..absent".to_owned(), ..secret_ids() };
    let error =
        read_key(&wrong, vault(), Arc::clone(&instance), Arc::new(Impatient::default())).await.unwrap_err();
    assert!(error.to_string().starts_with("the fingerprint cannot be read from the Vault"), "{error}");
    let swapped = SecretIds { user: secret_ids().private_key, ..secret_ids() };
    let error = read_key(&swapped, vault(), instance, Arc::new(Impatient::default())).await.unwrap_err();
    assert!(matches!(error, VaultError::Unusable { name: "user", .. }), "{error}");
    assert!(!error.to_string().contains("BEGIN"));
}

#[test]
fn what_is_no_key_is_refused_without_showing_it() {
    let pem = Account::generate("one").unwrap().private_key_pem();
    let read =
        |pem: &str, pass_phrase| PrivateKey::from_pem("t/u/f".to_owned(), pem, pass_phrase).unwrap_err();
    assert_eq!(read("", None), KeyError::NoKey);
    assert!(matches!(read(&pem.replace('A', "B"), None), KeyError::Rejected(_) | KeyError::NoKey));
    let sealed = pem.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE");
    assert!(matches!(read(&sealed, Some("x")), KeyError::UnknownEncryption(_) | KeyError::NoKey));
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert_eq!(read(old, None), KeyError::NoPassPhrase);
    assert_eq!(read(old, Some("x")), KeyError::WrongPassPhrase);
    let des = old.replace("AES-128-CBC", "DES-EDE3-CBC");
    assert_eq!(read(&des, Some("x")), KeyError::UnknownEncryption("DES-EDE3-CBC".to_owned()));
}
