"""The broker as the bridge sees it: batches of messages in, each acknowledged by hand and in order, publishes out."""

from gateway.adapters.mqtt.client import MqttClient, Options
from gateway.adapters.mqtt.connection import Message

__all__ = ["Message", "MqttClient", "Options"]
