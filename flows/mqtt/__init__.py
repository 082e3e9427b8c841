"""MQTT: a broker as an input, through a spool."""
