//! TLS of the public port: a certificate from files, taken up anew when they change.

use std::{io, path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::Tls;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{path}` cannot be read as PEM")]
    Pem {
        path: String,
        #[source]
        source: pem::Error,
    },
    #[error("certificate and key do not go together")]
    Mismatch(#[source] rustls::Error),
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The present certificate.
#[derive(Debug)]
pub(crate) struct Certificate {
    settings: Tls,
    provider: Arc<CryptoProvider>,
    present: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.present.load_full())
    }
}

impl Certificate {
    /// Reads the files.
    pub(crate) fn load(settings: &Tls) -> Result<Arc<Self>, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let present = ArcSwap::from_pointee(read(settings, &provider)?);
        Ok(Arc::new(Self { settings: settings.clone(), provider, present }))
    }

    /// Accepts TLS 1.2 and 1.3, for h2 and HTTP/1.1.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::Setup)?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Looks at the files from time to time. One that cannot be read leaves the present certificate in place.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.stamp();
        let mut ticks = tokio::time::interval(self.settings.reload);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let stamp = self.stamp();
            if stamp == seen {
                continue;
            }
            match read(&self.settings, &self.provider) {
                Ok(certificate) => {
                    self.present.store(Arc::new(certificate));
                    seen = stamp;
                    tracing::info!("took up a new certificate");
                }
                // Seen between the writing of one file and of the other, perhaps: the next look tells.
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "keeps the old certificate"),
            }
        }
    }

    fn stamp(&self) -> [Option<SystemTime>; 2] {
        [&self.settings.certificates, &self.settings.key].map(|path| modified(path).ok())
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

fn read(settings: &Tls, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        |source| Error::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&settings.certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(&settings.certificates))?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(unreadable(&settings.key))?;
    CertifiedKey::from_der(chain, key, provider).map_err(Error::Mismatch)
}
