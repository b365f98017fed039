"""RabbitMQ: the broker map as data, its provisioning, confirmed publishing, and decoding what arrives."""
