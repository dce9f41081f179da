PASSWORD = os.environ["PASSWORD"]
