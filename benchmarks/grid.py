"""x"""


def main(): ...
