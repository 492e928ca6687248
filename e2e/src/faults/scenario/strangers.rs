//! Who has no business in the mesh knocks at content's own port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh::Workload;
use spiffe::X509Source;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::Code;

use crate::faults::cluster::{AUTH, CONTENT, Cluster, EDGE, Plan};
use crate::faults::{Findings, Run};
use crate::process::Process;
use crate::raw;

/// What the edge may call in nobody's name.
const METHOD: &str = "/guildhall.content.v1.TagService/ListTags";
/// The beginning of any conversation of HTTP/2: the preface, and settings with nothing in them.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of the frame with which a server begins, and where it stands.
const SETTINGS: (usize, u8) = (3, 4);
const SOON: Duration = Duration::from_secs(10);

pub async fn refused(run: &Run, logs: Option<&Path>) -> Findings {
    let cluster = Cluster::start(&run.program, Plan::default(), logs).await;
    let content = cluster.listens(&cluster.names_of(CONTENT)[0]);
    let mut findings = Findings::default();

    for (workload, expected) in [(EDGE, Code::Ok), (AUTH, Code::PermissionDenied), ("operator", Code::PermissionDenied)]
    {
        let server: Workload = CONTENT.parse().expect("a workload");
        let channel = mesh::connect(&cluster.identity(workload).await, server, content.into());
        let outcome = raw::call(channel, METHOD, None, &[]).await;
        run.tell(format_args!("{workload} calls content: {:?}", raw::code(&outcome)));
        findings.calls += 1;
        findings.expect(raw::code(&outcome) == expected, || format!("{workload} is answered {outcome:?}"));
    }

    let mut plain = TcpStream::connect(content).await.expect("content listens");
    note(run, &mut findings, "plain HTTP/2", answers(&mut plain).await, false);
    let nobody = client_config().with_no_client_auth();
    note(run, &mut findings, "nobody", answers_over_tls(nobody, content).await, false);

    // The same client with a good SVID, so that it is the SVID that the others lack.
    let good = svid_of(&cluster.socket(EDGE)).await;
    note(run, &mut findings, "the edge's SVID", answers_over_tls(good, content).await, true);
    for (whose, trust_domain) in
        [("another trust domain", "elsewhere.example"), ("another authority", "guildhall.internal")]
    {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let own = directory.path().join("agent");
        let arguments = ["agent", "--directory", &own.display().to_string(), "--trust-domain", trust_domain];
        let mut agent = Process::new("a foreign agent", &run.program, arguments.map(str::to_owned));
        agent.start();
        let socket = own.join(format!("{EDGE}.sock"));
        agent.until(async || UnixStream::connect(&socket).await.ok()).await;
        let foreign = svid_of(&socket).await;
        note(run, &mut findings, whose, answers_over_tls(foreign, content).await, false);
    }
    findings
}

fn note(run: &Run, findings: &mut Findings, who: &str, answered: bool, expected: bool) {
    run.tell(format_args!("{who} is {}", if answered { "spoken to" } else { "refused" }));
    findings.calls += 1;
    findings.expect(answered == expected, || format!("{who}: spoken to is {answered}"));
}

/// Whether the other end begins a conversation. A TLS alert, or an end, is none.
async fn answers(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) -> bool {
    let mut frame = [0; 9];
    let talk = async {
        stream.write_all(HELLO).await?;
        stream.read_exact(&mut frame).await
    };
    let answered = matches!(tokio::time::timeout(SOON, talk).await, Ok(Ok(_)));
    answered && frame[SETTINGS.0] == SETTINGS.1
}

async fn answers_over_tls(mut config: ClientConfig, address: SocketAddr) -> bool {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.expect("content listens");
    let name = CONTENT.try_into().expect("a name");
    let connected = tokio::time::timeout(SOON, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    match connected {
        Ok(Ok(mut stream)) => answers(&mut stream).await,
        _ => false,
    }
}

/// A client that believes any server and shows the SVID of this socket.
async fn svid_of(socket: &Path) -> ClientConfig {
    let endpoint = format!("unix:{}", socket.display());
    let source = X509Source::builder().endpoint(endpoint).build().await.expect("the agent gives an SVID");
    let svid = source.svid().expect("the agent gives an SVID");
    let chain = svid.cert_chain().iter().map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()));
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
    client_config().with_client_auth_cert(chain.collect(), key).expect("the key is the certificate's")
}

fn client_config() -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::client::WantsClientCert> {
    ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(trusting::Anybody))
}

mod trusting {
    use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

    /// Believes any server: what is tried is the server's own judgement.
    #[derive(Debug)]
    pub struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}
