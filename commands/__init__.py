"""Use cases that change something: commands, admission, relay, keeper. They see the world through `commands.ports`."""
