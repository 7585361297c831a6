//! A schema that has nothing to do with virtualisation, both ends of it in one program.

use qapi_runtime::{Call, Cursor, Decode, DecodeError, Encode, Error, Writer};

/// What the compiler made of `weather.json` for a server.
pub mod server {
    include!(concat!(env!("OUT_DIR"), "/server.rs"));
}

/// What the compiler made of `weather.json` for a client.
pub mod client {
    include!(concat!(env!("OUT_DIR"), "/client.rs"));
}

/// A temperature: a type of our own that stands for one of the schema.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Celsius(pub f64);

impl Decode for Celsius {
    fn decode(value: Cursor<'_>) -> Result<Self, DecodeError> {
        let mut object = qapi_runtime::Object::open(value)?;
        let milli: i32 = object.required("milli")?;
        object.finish()?;
        Ok(Celsius(f64::from(milli) / 1000.0))
    }
}

impl Encode for Celsius {
    #[expect(clippy::cast_possible_truncation, reason = "no air is that warm")]
    fn encode(&self, out: &mut Writer) {
        let milli = (self.0 * 1000.0).round() as i64;
        out.object(|out| out.member("milli", &milli));
    }
}

/// A station on a fine day.
#[derive(Debug)]
pub struct Station;

impl server::WeatherCommands for Station {
    async fn query_station(&self, _call: &Call) -> Result<server::StationInfo, Error> {
        // What must be there first, then what is known, the members of the base among them.
        Ok(server::StationInfo::builder("Zugspitze", "WS 90")
            .height(2_962)
            .since(1900)
            .coldest(Celsius(-40.0))
            .build())
    }

    async fn query_weather(&self, _call: &Call) -> Result<server::Weather, Error> {
        Ok(server::Weather {
            temperature: Celsius(21.5),
            sky: server::Sky::Clear,
            #[cfg(feature = "have-wind")]
            wind: Some(3.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qapi_runtime::client::{Client, ClientOptions};
    use qapi_runtime::{ListenOptions, Peer, Server};
    use std::sync::Arc;

    #[tokio::test]
    async fn a_client_asks_the_station() {
        let server = Server::builder(server::commands(), Arc::new(Station)).build();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(server.attach(theirs, Peer::Other("test".into()), ListenOptions::default()));
        let connection = Client::over(ours, ClientOptions::default()).await.unwrap();
        let weather = client::Client::new(connection).query_weather().await.unwrap();
        assert_eq!(weather.temperature, Celsius(21.5));
        assert_eq!(weather.sky, client::Sky::Clear);
    }

    #[tokio::test]
    async fn a_builder_says_what_is_known() {
        let server = Server::builder(server::commands(), Arc::new(Station)).build();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(server.attach(theirs, Peer::Other("test".into()), ListenOptions::default()));
        let connection = Client::over(ours, ClientOptions::default()).await.unwrap();
        let station = client::Client::new(connection).query_station().await.unwrap();
        let expected = client::StationInfo::builder("Zugspitze", "WS 90")
            .since(1900)
            .coldest(Celsius(-40.0))
            .height(2_962)
            .build();
        assert_eq!(station, expected);
        assert_eq!(
            (station.name.as_str(), station.height, &station.owner),
            ("Zugspitze", Some(2_962), &None)
        );
        assert_eq!(
            text(&station),
            r#"{"name": "Zugspitze", "height": 2962, "model": "WS 90", "since": 1900, "coldest": {"milli": -40000}}"#
        );
    }

    fn text(value: &impl Encode) -> String {
        let mut out = Writer::default();
        value.encode(&mut out);
        String::from_utf8(out.into_bytes()).unwrap()
    }

    #[test]
    fn the_wind_is_there_when_its_feature_is() {
        let told = String::from_utf8_lossy(server::INTROSPECTION);
        assert_eq!(told.contains("wind"), cfg!(feature = "have-wind"));
        assert_eq!(
            server::Sky::ALL.len(),
            if cfg!(feature = "have-wind") { 3 } else { 2 }
        );
    }
}
