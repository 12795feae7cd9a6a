"""Words only: what an event, a person, a decision, a change and a setting are. No I/O, no vendor, no Kafka."""
