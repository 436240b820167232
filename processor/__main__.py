from processor.cli.leaving import end_on_sigterm

end_on_sigterm()  # before the imports that take long

from processor.cli.main import main  # noqa: E402

main()
