"""How AIS is run: `dev/` on one machine from wheels; the other folders are mounted by docker-compose.yml."""
