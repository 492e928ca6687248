//! Where a service listens: addresses, and names that are asked again and again.

use std::{fmt, io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture, future::join_all};
use metrics::Counter;
use tokio::{
    net::lookup_host,
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// What marks a name whose every address is an endpoint.
const DNS: &str = "dns:";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// A name is not asked again sooner than that after the last time, whatever fails.
const BREATH: Duration = Duration::from_millis(500);
/// Endpoints behind one name; further ones get no calls.
const MOST: usize = 64;

/// Where the replicas of a service listen.
///
/// Each `host:port` is one of them, looked up at each connection. `dns:host:port` is as many as the name has addresses: it
/// is asked again all the time, and while there is no answer the last one holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints(Arc<[Place]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Fixed(Arc<str>),
    Name(Arc<str>),
}

/// The text says no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEndpoints {
    /// An entry has another form.
    #[error("`{0}` is neither host:port nor dns:host:port")]
    Malformed(String),
    /// The list has no entry.
    #[error("there must be at least one host:port or dns:host:port")]
    Empty,
}

impl FromStr for Place {
    type Err = NotEndpoints;

    fn from_str(text: &str) -> Result<Self, NotEndpoints> {
        let name = text.strip_prefix(DNS);
        let place = name.unwrap_or(text);
        let authority = place.parse::<http::uri::Authority>().ok();
        let complete = authority.is_some_and(|authority| {
            authority.port_u16().is_some() && !authority.host().is_empty() && !place.contains('@')
        });
        match name {
            _ if !complete => Err(NotEndpoints::Malformed(text.to_owned())),
            Some(name) => Ok(Self::Name(name.into())),
            None => Ok(Self::Fixed(text.into())),
        }
    }
}

impl FromStr for Endpoints {
    type Err = NotEndpoints;

    fn from_str(text: &str) -> Result<Self, NotEndpoints> {
        Ok(Self([text.parse()?].into()))
    }
}

impl TryFrom<Vec<String>> for Endpoints {
    type Error = NotEndpoints;

    fn try_from(list: Vec<String>) -> Result<Self, NotEndpoints> {
        let places: Arc<[_]> = list.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        if places.is_empty() { Err(NotEndpoints::Empty) } else { Ok(Self(places)) }
    }
}

impl From<SocketAddr> for Endpoints {
    fn from(address: SocketAddr) -> Self {
        Self([Place::Fixed(address.to_string().into())].into())
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            match place {
                Place::Fixed(address) => f.write_str(address)?,
                Place::Name(name) => write!(f, "{DNS}{name}")?,
            }
        }
        Ok(())
    }
}

impl Endpoints {
    /// Those that need not be asked for.
    pub(crate) fn fixed(&self) -> Vec<Arc<str>> {
        self.pick(|place| match place {
            Place::Fixed(address) => Some(address),
            Place::Name(_) => None,
        })
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.pick(|place| match place {
            Place::Fixed(_) => None,
            Place::Name(name) => Some(name),
        })
    }

    /// Without repetitions.
    fn pick(&self, which: impl Fn(&Place) -> Option<&Arc<str>>) -> Vec<Arc<str>> {
        let mut picked: Vec<_> = self.0.iter().filter_map(which).cloned().collect();
        picked.sort();
        picked.dedup();
        picked
    }
}

/// Looks names up.
pub trait Resolver: Send + Sync + 'static {
    /// Every address of `name`, which is `host:port`.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        lookup_host(name).map(|found| Ok(found?.collect())).boxed()
    }
}

/// Follows the names among the endpoints of a service until it is dropped.
pub(crate) struct Follower {
    again: Arc<Notify>,
    asked: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

/// What a follower works with.
pub(crate) struct Following {
    pub(crate) endpoints: Endpoints,
    pub(crate) resolver: Arc<dyn Resolver>,
    /// Between one time and the next.
    pub(crate) every: Duration,
    pub(crate) failures: Counter,
}

impl Follower {
    /// Tells `update` every endpoint each time that all names have been asked. `None` where there is no name.
    pub(crate) fn start(following: Following, update: impl Fn(&[Arc<str>]) + Send + 'static) -> Option<Self> {
        if following.endpoints.names().is_empty() {
            return None;
        }
        let (again, (told, asked)) = (Arc::new(Notify::new()), watch::channel(false));
        let task = follow(following, Arc::clone(&again), told, update);
        Some(Self { again, asked, _task: AbortOnDropHandle::new(tokio::spawn(task)) })
    }

    /// Returns once every name was asked, whether it was found or not.
    pub(crate) async fn asked(&self) {
        // An error says that the task has ended, which it does with the runtime.
        let _ = self.asked.clone().wait_for(|asked| *asked).await;
    }

    /// Something is wrong with an endpoint: its name may have changed.
    pub(crate) fn look_up_again(&self) {
        self.again.notify_one();
    }
}

async fn follow(
    following: Following,
    again: Arc<Notify>,
    told: watch::Sender<bool>,
    update: impl Fn(&[Arc<str>]) + Send + 'static,
) {
    let Following { endpoints, resolver, every, failures } = following;
    let names = endpoints.names();
    let mut found = vec![Vec::new(); names.len()];
    loop {
        let answers = join_all(names.iter().map(|name| timeout(ANSWER, resolver.resolve(name)))).await;
        for ((name, known), answer) in names.iter().zip(&mut found).zip(answers) {
            match answer.map_err(io::Error::from).flatten().and_then(some) {
                Ok(addresses) => *known = addresses,
                Err(error) => {
                    failures.increment(1);
                    tracing::warn!(%error, mesh.name = %name, mesh.endpoints = known.len(), "A name could not be looked up");
                }
            }
        }
        let mut all: Vec<_> = endpoints.fixed().into_iter().chain(found.iter().flatten().cloned()).collect();
        all.sort();
        all.dedup();
        update(&all);
        told.send_replace(true);
        sleep(BREATH.min(every)).await;
        let _ = timeout(every.saturating_sub(BREATH), again.notified()).await;
    }
}

/// A name without addresses is as good as one that is not known: nobody takes all replicas out of DNS to stop a service.
fn some(mut addresses: Vec<SocketAddr>) -> io::Result<Vec<Arc<str>>> {
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST);
    Ok(addresses.into_iter().map(|address| address.to_string().into()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use tokio::sync::mpsc;

    use super::*;

    fn all(texts: &[&str]) -> Result<Endpoints, NotEndpoints> {
        texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>().try_into()
    }

    #[test]
    fn endpoints_are_addresses_and_names() {
        for text in ["content:8082", "127.0.0.1:1", "[::1]:8082", "dns:content.guildhall.svc:8082"] {
            assert_eq!(text.parse::<Endpoints>().unwrap().to_string(), text);
        }
        for text in
            ["", "content", "content:", ":8082", "a@b:1", "http://content:1", "dns:", "dns:content", "dns:dns:a:1"]
        {
            assert_eq!(text.parse::<Endpoints>(), Err(NotEndpoints::Malformed(text.to_owned())), "{text}");
        }
        let mix = all(&["b:1", "dns:c:2", "a:1", "b:1"]).unwrap();
        assert_eq!(mix.to_string(), "b:1, dns:c:2, a:1, b:1");
        assert_eq!(mix.fixed(), ["a:1".into(), "b:1".into()]);
        assert_eq!(mix.names(), ["c:2".into()]);
        assert_eq!(all(&["a:1", "b"]), Err(NotEndpoints::Malformed("b".to_owned())));
        assert_eq!(all(&[]), Err(NotEndpoints::Empty));
    }

    /// Answers what the test says.
    struct Says(Mutex<io::Result<Vec<SocketAddr>>>);

    impl Says {
        fn say(&self, answer: io::Result<Vec<SocketAddr>>) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answer;
        }
    }

    impl Resolver for Says {
        fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let answer = match &*self.0.lock().unwrap() {
                Ok(addresses) => Ok(addresses.clone()),
                Err(error) => Err(error.kind().into()),
            };
            std::future::ready(answer).boxed()
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands for what a resolver answers")]
    fn addresses(ports: &[u16]) -> io::Result<Vec<SocketAddr>> {
        Ok(ports.iter().map(|port| ([10, 0, 0, 1], *port).into()).collect())
    }

    async fn next(updates: &mut mpsc::UnboundedReceiver<Vec<Arc<str>>>, wanted: &[&str]) {
        let seen = async {
            while updates.recv().await.unwrap().iter().map(|address| &**address).ne(wanted.iter().copied()) {}
        };
        timeout(Duration::from_secs(10), seen).await.unwrap_or_else(|_| panic!("{wanted:?} never came"));
    }

    #[tokio::test]
    async fn a_name_is_asked_again_and_what_was_found_holds_while_there_is_no_answer() {
        let says = Arc::new(Says(Mutex::new(addresses(&[2, 1, 2]))));
        let (send, mut updates) = mpsc::unbounded_channel();
        let following = Following {
            endpoints: all(&["fixed:9", "dns:content:1"]).unwrap(),
            resolver: says.clone(),
            every: Duration::from_millis(5),
            failures: Counter::noop(),
        };
        let follower = Follower::start(following, move |found| drop(send.send(found.to_vec()))).unwrap();
        follower.asked().await;
        let both = ["10.0.0.1:1", "10.0.0.1:2", "fixed:9"];
        next(&mut updates, &both).await;
        for nothing in [Err(io::ErrorKind::NotFound.into()), addresses(&[])] {
            says.say(nothing);
            while updates.try_recv().is_ok() {}
            for _ in 0..3 {
                let found = timeout(Duration::from_secs(10), updates.recv()).await.unwrap().unwrap();
                assert_eq!(found, both.map(Arc::from));
            }
        }
        says.say(addresses(&[3, 2]));
        next(&mut updates, &["10.0.0.1:2", "10.0.0.1:3", "fixed:9"]).await;
        drop(follower);
        timeout(Duration::from_secs(10), async { while updates.recv().await.is_some() {} })
            .await
            .expect("it has ended");
    }

    #[tokio::test]
    async fn a_failure_makes_it_ask_before_its_time() {
        let says = Arc::new(Says(Mutex::new(addresses(&[1]))));
        let (send, mut updates) = mpsc::unbounded_channel();
        let following = Following {
            endpoints: "dns:content:1".parse().unwrap(),
            resolver: says.clone(),
            every: Duration::from_hours(1),
            failures: Counter::noop(),
        };
        let follower = Follower::start(following, move |found| drop(send.send(found.to_vec()))).unwrap();
        next(&mut updates, &["10.0.0.1:1"]).await;
        says.say(addresses(&[2]));
        follower.look_up_again();
        next(&mut updates, &["10.0.0.1:2"]).await;
    }

    #[tokio::test]
    async fn the_system_knows_this_host() {
        let found = SystemResolver.resolve("localhost:7").await.unwrap();
        assert!(found.iter().any(|address| address.ip().is_loopback() && address.port() == 7));
    }

    #[test]
    fn there_is_a_bound_on_the_endpoints_of_a_name() {
        let many = addresses(&(0..1000).collect::<Vec<_>>()).unwrap();
        assert_eq!(some(many).unwrap().len(), MOST);
    }
}
